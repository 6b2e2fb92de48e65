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

const shortened = (path) => path.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, (id) => id.slice(0, 8) + "…");
const pretty = (text) => { try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; } };

function draw() {
  const current = selected ?? exchanges[0];
  const list = find("exchanges");
  const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren(...exchanges.map((e) => element("li", {}, element("button", {
    type: "button", "aria-pressed": String(e === current), onclick: () => { selected = e; draw(); },
  },
  element("span", {}, e.method),
  element("span", { className: "path", title: e.path }, `\u200e${shortened(e.path)}`),
  element("span", { className: e.problem ? "bad" : "" }, e.status ? `${e.status}${e.problem && e.status < 400 ? "!" : ""}` : e.state === "asking" ? "…" : "–"),
  element("span", {}, e.total ? `${Math.round(e.total)} ms` : "")))));
  list.querySelectorAll("button")[focused]?.focus();

  const parts = [];
  if (current.problem) parts.push(element("div", { className: "problem" }, element("b", {}, current.problem.code), current.problem.detail ?? ""));
  const request = [`${current.method} ${current.path}`, current.user ? `Authorization: Bearer … (${current.user})` : "", ...Object.entries(current.headers).map(([k, v]) => `${k}: ${v}`)];
  parts.push(element("h3", {}, "Request"), element("pre", {}, request.filter(Boolean).join("\n") + (current.body === undefined ? "" : `\n\n${JSON.stringify(current.body, null, 2)}`)));
  const status = current.status ? `${current.status}, after ${Math.round(current.ms)} ms` : "";
  const state = { asking: "Waiting…", "hung up": "You hung up.", "no answer": "No answer." }[current.state] ?? "";
  const answer = [status, ...(current.answerHeaders ?? [])].filter(Boolean).join("\n");
  parts.push(element("h3", {}, "Response"), element("pre", {}, [answer, pretty(current.text ?? ""), state].filter(Boolean).join("\n\n")));
  find("exchange").replaceChildren(...parts);
}
