import { element, find } from "./dom.js";

const KEPT = 5;
const exchanges = []; // newest first
let selected = null; // null: the newest

// show is told of each request of the page, again and again while it is answered.
export function show(exchange) {
  if (!exchanges.includes(exchange)) {
    exchanges.unshift(exchange);
    if (exchanges.length > KEPT) exchanges.length = KEPT;
    if (!exchanges.includes(selected)) selected = null;
  }
  schedule();
}

let isScheduled = false;
function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  setTimeout(() => { isScheduled = false; draw(); }, 50);
}

function draw() {
  const current = selected ?? exchanges[0];
  const list = find("exchanges");
  const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren(...exchanges.map((e) => element("li", {}, row(e, e === current))));
  list.querySelectorAll("button")[focused]?.focus();
  const { problem } = current;
  find("exchange").replaceChildren(
    ...(problem ? [element("div", { className: "problem" }, element("b", {}, problem.code), problem.detail ?? "")] : []),
    element("h3", {}, "Request"), element("pre", {}, request(current)),
    element("h3", {}, "Response"), element("pre", {}, response(current)));
}

const shortened = (path) => path.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, (id) => id.slice(0, 8) + "…");

function row(e, isCurrent) {
  const isProblemOfStream = e.problem && e.status < 400;
  const status = e.status ? `${e.status}${isProblemOfStream ? "!" : ""}` : e.state === "asking" ? "…" : "–";
  return element("button", { type: "button", "aria-pressed": String(isCurrent), onclick: () => { selected = e; draw(); } },
    element("span", {}, e.method),
    element("span", { className: "path", title: e.path }, `\u200e${shortened(e.path)}\u200e`), // cut at its beginning, which is always the same
    element("span", { className: e.problem ? "bad" : "" }, status),
    element("span", {}, e.total ? `${Math.round(e.total)} ms` : ""));
}

const STATES = { asking: "Waiting…", "hung up": "You hung up.", "no answer": "No answer." };
const pretty = (text) => { try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; } };
const lines = (...all) => all.filter(Boolean).join("\n");
const paragraphs = (...all) => all.filter(Boolean).join("\n\n");

function request({ method, path, user, headers, body }) {
  const head = lines(`${method} ${path}`, user && `Authorization: Bearer … (${user})`, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`));
  return paragraphs(head, body && JSON.stringify(body, null, 2));
}

function response({ status, ms, answerHeaders = [], text = "", state }) {
  const head = lines(status && `${status}, after ${Math.round(ms)} ms`, ...answerHeaders);
  return paragraphs(head, pretty(text), STATES[state]);
}
