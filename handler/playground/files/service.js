import { call } from "./api.js";
import { element, find, setText } from "./dom.js";
import { banner } from "./notices.js";
import { duration } from "./time.js";

const LOST = "Redis cannot be reached. Nothing is lost or made up: what cannot be kept is refused. Trying again…";
const NOBODY = "Chatkeep does not answer. Is make run still running?";
const SILENT = { status: "unhealthy", store: "–", redisStatus: "–" };

// Service shows how the service is, and how much of it the user has.
export class Service {
  #limits;
  #on; // {changed(), back()}
  #health = null;
  #usage = null;

  constructor(limits, on) {
    this.#limits = limits;
    this.#on = on;
  }

  get isDown() { return this.#health?.status === "unhealthy"; }

  // feel asks for the health, and says what has changed.
  async feel() {
    const answer = await call(null, "GET", "/health", { quiet: true });
    const before = this.#health?.status;
    this.#health = answer.body ?? SILENT;
    const { status, store, warning } = this.#health;
    const isBack = before === "unhealthy" && status !== "unhealthy";
    if (status === "unhealthy") banner(answer.body ? LOST : NOBODY);
    else if (status === "degraded") banner(warning);
    else if (isBack) banner(store === "redis" ? "Redis is back, and so is every conversation." : "Chatkeep is back.", "good");
    else if (before === "degraded") banner("");
    this.#draw();
    this.#on.changed();
    if (isBack) await this.#on.back();
  }

  // measure asks what the user has, which no function of the API tells: the playground reads the store's own books.
  async measure(user) {
    const answer = await call(user, "GET", "/playground/usage", { quiet: true });
    if (!answer.ok) return;
    this.#usage = answer.body;
    this.#draw();
  }

  #draw() {
    if (!this.#health) return;
    find("health").dataset.state = this.#health.status;
    setText(find("health-text"), inShort(this.#health));
    const { bytes, conversations, turnsPerMinute } = this.#limits;
    const rows = healthRows(this.#health);
    if (this.#usage) {
      rows.push(...pair("Conversations", `${this.#usage.conversations} of ${conversations.toLocaleString("en")}`));
      rows.push(...pair("Quota used", `${size(this.#usage.bytes)} of ${size(bytes)}`));
      rows.push(element("dd", { className: "whole" }, element("meter", { max: bytes, high: bytes * 0.8, optimum: 0, value: this.#usage.bytes, "aria-label": "Quota used" })));
    }
    rows.push(...pair("Turns", `at most ${turnsPerMinute} a minute`));
    find("service").replaceChildren(...rows);
  }
}

const size = (n) => (n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`);
const pair = (name, value, className = "") => [element("dt", {}, name), element("dd", { className }, value)];

function inShort({ status, store, redisLatencyMs: ms }) {
  if (status === "unhealthy") return store === "redis" ? "Redis is down" : "No answer";
  if (status === "degraded") return "Degraded";
  return store === "redis" ? `Redis, ${ms.toFixed(1)} ms` : "In memory";
}

function healthRows({ status, store, redisStatus, redisLatencyMs: ms, version, uptimeSeconds }) {
  const className = status === "unhealthy" ? "bad" : "";
  const latency = typeof ms === "number" ? `, ${ms.toFixed(1)} ms` : "";
  const kept = { redis: `Redis: ${redisStatus}${latency}`, memory: "memory, until it ends" }[store] ?? "?";
  const rows = [...pair("Health", status, className), ...pair("Kept in", kept, className)];
  if (version) rows.push(...pair("Version", `${version}, up for ${duration(uptimeSeconds)}`));
  return rows;
}
