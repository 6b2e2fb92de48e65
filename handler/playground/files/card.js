/* global AdaptiveCards */
import { element } from "./dom.js";

// Colours are the page's own, so that a card follows its scheme.
const color = (name) => ({ default: `var(--${name})`, subtle: "var(--soft)" });
const style = {
  backgroundColor: "transparent",
  foregroundColors: { default: color("text"), accent: color("accent"), good: color("accent"), warning: color("warn"), attention: color("bad"), light: color("soft"), dark: color("text") },
};
const host = {
  fontFamily: "inherit", supportsInteractivity: true,
  spacing: { small: 6, default: 10, medium: 16, large: 24, extraLarge: 32, padding: 14 },
  separator: { lineThickness: 1, lineColor: "var(--line)" },
  fontSizes: { small: 12, default: 14, medium: 16, large: 20, extraLarge: 24 },
  containerStyles: { default: style, emphasis: style, accent: style, good: style, attention: style, warning: style },
  actions: { maxActions: 6, spacing: "default", buttonSpacing: 8, showCard: { actionMode: "inline", inlineTopMargin: 12, style: "emphasis" }, actionsOrientation: "horizontal", actionAlignment: "left" },
  factSet: { title: { color: "default", size: "default", isSubtle: true, weight: "default", wrap: false, maxWidth: 150 }, value: { color: "default", size: "default", isSubtle: false, weight: "default", wrap: true }, spacing: 10 },
};

// Texts are shown as they are: there is no Markdown here, and no HTML.
AdaptiveCards.AdaptiveCard.onProcessMarkdown = (text, result) => {
  result.outputHtml = element("p", {}, text).innerHTML;
  result.didProcess = true;
};

// It needs styles that the library has not; a card may name something else to fall back to.
AdaptiveCards.GlobalRegistry.defaultElements.unregister("Carousel");

const isWeb = (address) => /^https?:\/\//i.test(address);

function act(action, submit) {
  if (action instanceof AdaptiveCards.SubmitAction) submit(action.data ?? {});
  if (action instanceof AdaptiveCards.OpenUrlAction && isWeb(action.url)) window.open(action.url, "_blank", "noopener,noreferrer");
}

// renderCard returns a card as Microsoft's library draws it. What is submitted goes to submit. A link leads to the web or nowhere.
export function renderCard(json, submit) {
  const place = element("div", { className: "card" });
  try {
    const card = new AdaptiveCards.AdaptiveCard();
    card.hostConfig = new AdaptiveCards.HostConfig(host);
    card.onExecuteAction = (action) => act(action, submit);
    card.parse(json);
    place.append(card.render());
  } catch (err) {
    place.replaceChildren(element("p", { className: "note bad" }, `This card cannot be drawn: ${err.message}`));
  }
  for (const link of place.querySelectorAll("a")) {
    if (!isWeb(link.href)) link.removeAttribute("href");
  }
  return place;
}
