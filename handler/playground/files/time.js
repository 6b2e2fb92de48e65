import { element, setText } from "./dom.js";

// Up to which second a unit is used, and how many seconds it has.
const SPANS = [[59.5, "s", 1], [3570, "min", 60], [84600, "h", 3600], [Infinity, "d", 86400]];

function span(seconds) {
  const [, unit, size] = SPANS.find(([below]) => seconds < below);
  return `${Math.round(seconds / size)} ${unit}`;
}

function ago(date) {
  const seconds = (Date.now() - date) / 1000;
  return seconds < 3 ? "now" : `${span(seconds)} ago`;
}

function left(date) {
  const seconds = (date - Date.now()) / 1000;
  return seconds <= 0 ? "expired" : `expires in ${span(seconds)}`;
}

const said = { ago, left };

// relative is a time that goes on: how long ago it was, or how long it is until then.
export function relative(kind, text) {
  const date = new Date(text);
  return element("time", { dateTime: text, title: date.toLocaleString(), "data-relative": kind }, said[kind](date));
}

export const duration = span;

setInterval(() => {
  for (const time of document.querySelectorAll("time[data-relative]")) {
    setText(time, said[time.dataset.relative](new Date(time.dateTime)));
  }
}, 1000);
