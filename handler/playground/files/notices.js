import { element, find, setText } from "./dom.js";

const READING = 8000; // ms for which a notice is there

function post(message, ...buttons) {
  const notice = element("div", { className: "toast" }, element("span", {}, message), ...buttons);
  find("toasts").append(notice);
  return notice;
}

// toast says something for a while.
export function toast(message) {
  const notice = post(message, element("button", { type: "button", onclick: () => notice.remove() }, "Close"));
  setTimeout(() => notice.remove(), READING);
}

const waiting = new Set(); // what is done when its time to undo is over

// undoable says that something is done, and does it when nobody undid it for so many seconds, or when the page is left.
export function undoable(message, seconds, act, undo) {
  let left = seconds;
  const button = element("button", { type: "button" });
  const notice = post(message, button);
  const end = (then) => {
    if (!waiting.delete(finish)) return;
    clearInterval(clock);
    notice.remove();
    then();
  };
  const finish = () => end(act);
  const tick = () => (left > 0 ? setText(button, `Undo (${left--})`) : finish());
  const clock = setInterval(tick, 1000);
  waiting.add(finish);
  button.addEventListener("click", () => end(undo));
  tick();
  button.focus();
}

addEventListener("pagehide", () => { for (const finish of [...waiting]) finish(); });

let hiding;

// banner says what matters to the whole page, until it is told "", or for a while when it is good.
export function banner(message, kind = "") {
  clearTimeout(hiding);
  const node = find("banner");
  node.hidden = !message;
  node.dataset.kind = kind;
  setText(node, message);
  if (kind === "good") hiding = setTimeout(() => banner(""), READING);
}
