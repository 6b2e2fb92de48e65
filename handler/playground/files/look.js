import { find } from "./dom.js";

const tabs = [...document.querySelectorAll(".tabs button")];

// view shows a part of the page where there is no room for all of them.
export function view(name) {
  document.body.dataset.view = name;
  for (const tab of tabs) tab.setAttribute("aria-current", String(tab.dataset.view === name));
}

const SCHEMES = { "": "as the system has them", light: "light", dark: "dark" };

function paint(scheme) {
  if (scheme) document.documentElement.dataset.theme = scheme;
  else delete document.documentElement.dataset.theme;
  find("theme").setAttribute("aria-label", `Colours: ${SCHEMES[scheme]}`);
  localStorage.setItem("scheme", scheme);
}

// The next scheme always looks other than this one.
function paintNext() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const order = isDark ? ["", "light", "dark"] : ["", "dark", "light"];
  paint(order[(order.indexOf(document.documentElement.dataset.theme ?? "") + 1) % order.length]);
}

for (const tab of tabs) tab.addEventListener("click", () => view(tab.dataset.view));
find("theme").addEventListener("click", paintNext);
paint(localStorage.getItem("scheme") ?? "");
view("chat");
