import { call, onExchange } from "./api.js";
import { element, find, setText } from "./dom.js";
import { experiments } from "./experiments.js";
import { show as showExchange } from "./inspector.js";
import { duration, relative } from "./time.js";
import { Transcript } from "./transcript.js";

const UNDO = 8; // seconds
const EXAMPLES = [
  ["A long answer", "Rome has nine hundred churches, and each of them has a story that begins with a door."],
  ["A card", "/card"],
  ["Suggestions", "/suggest"],
  ["Half an answer", "/fail This answer breaks off here, and stays as far as it came."],
  ["No answer", "/stall"],
]; // to the echo; another agent has no such commands

const state = {
  about: null,
  user: null,
  conversations: [], // of the list, newest first
  cursor: null,
  id: null, // of the open conversation
  conversation: null,
  etag: null,
  turns: new Map(), // message ids of turns that run here, by conversation
  leaving: new Map(), // conversations that are deleted when their time to undo is over, by id
  health: "unknown",
};

const chats = "/api/chat/conversations";
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const nameOf = (user) => user[0].toUpperCase() + user.slice(1);
const titleOf = (c) => c.title || "Untitled";

const transcript = new Transcript(find("transcript"), find("scroll"), {
  again: (m) => say({ text: m.text, value: m.value }, m.state === "unsent" ? m.id : undefined),
  submit: (value) => say({ value }),
  say: (text) => say({ text }),
});

onExchange(showExchange);

// ---- Who

function offerUsers() {
  find("choices").replaceChildren(...state.about.users.map((user) => element("button", { type: "button", onclick: () => signIn(user) },
    element("span", { className: "initial", "aria-hidden": "true" }, user[0].toUpperCase()), nameOf(user))));
}

function signIn(user) {
  state.user = user;
  sessionStorage.setItem("user", user);
  find("users").replaceChildren(...state.about.users.map((other) => element("button", {
    type: "button", "aria-pressed": String(other === user), onclick: () => other !== user && signIn(other),
  }, nameOf(other))));
  find("sign-in").hidden = true;
  find("app").hidden = false;
  state.conversations = [];
  drawList();
  close();
  refresh(false);
  find("text").focus();
}

// ---- The list

async function refresh(quiet = true) {
  const user = state.user;
  if (!user) return;
  const status = find("status").value;
  const answer = await call(user, "POST", "/api/chat/list-conversations", { quiet, body: { limit: 30, ...(status && { status }) } });
  if (!answer.ok || user !== state.user || status !== find("status").value) return;
  state.conversations = answer.body.conversations;
  state.cursor = answer.body.nextCursor;
  drawList();
  measure();
  const open = state.conversations.find((c) => c.id === state.id);
  if (open && state.conversation && open.version !== state.conversation.version && !state.turns.has(open.id)) load(open.id, true);
}

async function older() {
  const status = find("status").value;
  const answer = await call(state.user, "POST", "/api/chat/list-conversations", { body: { limit: 30, cursor: state.cursor, ...(status && { status }) } });
  if (!answer.ok) return;
  const known = new Set(state.conversations.map((c) => c.id));
  state.conversations.push(...answer.body.conversations.filter((c) => !known.has(c.id)));
  state.cursor = answer.body.nextCursor;
  drawList();
}

const items = new Map(); // <li> by id

function drawList() {
  const list = find("conversations");
  const visible = state.conversations.filter((c) => !state.leaving.has(c.id));
  for (const [id, item] of items) {
    if (!visible.some((c) => c.id === id)) { item.remove(); items.delete(id); }
  }
  list.querySelector(".nothing")?.remove();
  visible.forEach((c, i) => {
    let item = items.get(c.id);
    if (!item) {
      item = element("li", {}, element("button", { type: "button", "data-id": c.id, onclick: () => open(c.id) }));
      items.set(c.id, item);
    }
    const button = item.firstChild;
    const drawn = JSON.stringify([c.version, c.title, c.status, c.expiresAt, c.lastMessage, c.id === state.id]);
    if (button.drawn !== drawn) {
      button.drawn = drawn;
      button.setAttribute("aria-current", String(c.id === state.id));
      button.replaceChildren(
        element("span", { className: "name" }, titleOf(c)), relative("ago", c.updatedAt),
        element("span", { className: "preview" }, c.lastMessage ? `${c.lastMessage.role === "user" ? "You: " : ""}${c.lastMessage.text}` : "Nothing was said yet"),
        element("span", { className: "foot" }, c.status === "active" ? null : element("span", { className: "chip", "data-status": c.status }, c.status), relative("left", c.expiresAt)));
    }
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
  });
  if (visible.length === 0) list.append(element("li", { className: "nothing" }, "No conversation here yet."));
  find("more").hidden = !state.cursor;
}

find("conversations").addEventListener("keydown", (e) => {
  const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[e.key];
  if (!step) return;
  e.preventDefault();
  const buttons = [...e.currentTarget.querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement) + step;
  buttons[Math.max(0, Math.min(buttons.length - 1, at))]?.focus();
});

// ---- The open conversation

function close() {
  state.id = state.conversation = state.etag = null;
  transcript.clear();
  drawHead();
  drawList();
}

async function open(id) {
  close();
  state.id = id;
  drawList();
  view("chat");
  await load(id, false);
  resume(id);
}

// load reads the conversation as it is stored. What has not changed is not read again.
async function load(id, quiet) {
  const headers = state.etag && quiet ? { "If-None-Match": state.etag } : {};
  const answer = await call(state.user, "GET", `${chats}/${id}`, { quiet, headers });
  if (state.id !== id || answer.status === 304) return;
  if (answer.status === 404) {
    close();
    toast("That conversation is gone.");
  } else if (answer.ok) {
    state.conversation = answer.body.conversation;
    state.etag = answer.headers.get("ETag");
    transcript.show(answer.body.messages);
    drawHead();
  }
}

// resume goes on with a turn that runs, from the last of its events that is known.
async function resume(id, user = state.user) {
  const messageId = transcript.pending?.id;
  if (state.id !== id || !messageId || state.turns.has(id)) return;
  run(id, messageId);
  const headers = transcript.lastEvent ? { "Last-Event-ID": transcript.lastEvent } : {};
  const answer = await call(user, "GET", `${chats}/${id}/stream`, { headers, onEvent: (event) => apply(id, event) });
  rest(id);
  if (state.id === id && answer.status !== 0) await load(id, true);
}

function apply(id, event) {
  if (state.id === id) {
    transcript.apply(event);
    drawHead();
  }
}

function drawHead() {
  const c = state.conversation;
  find("chat-head").hidden = !c;
  find("empty").hidden = transcript.size > 0;
  find("stop").hidden = !state.turns.has(state.id);
  find("send").hidden = state.turns.has(state.id);
  if (!c) return;
  setText(find("title"), titleOf(c));
  find("facts").replaceChildren(
    element("span", { className: "chip", "data-status": c.status }, c.status),
    element("span", {}, "updated ", relative("ago", c.updatedAt)), relative("left", c.expiresAt), element("span", {}, count(c.messageCount, "message")));
  setText(find("do-complete"), c.status === "active" ? "Complete" : "Make active");
  find("do-archive").hidden = c.status === "archived";
}

const run = (id, messageId) => { state.turns.set(id, messageId); drawHead(); };
const rest = (id) => { state.turns.delete(id); drawHead(); };

// conversation is the id of the open conversation, or of a new one.
async function conversation() {
  if (state.id) return state.id;
  const answer = await call(state.user, "POST", "/api/chat/start", { headers: { "Idempotency-Key": crypto.randomUUID() } });
  if (!answer.ok) throw new Refused(answer.problem);
  state.id = answer.body.conversationId;
  state.conversation = answer.body.conversation;
  state.etag = null;
  transcript.show(answer.body.messages);
  drawHead();
  return state.id;
}

class Refused extends Error {
  constructor(problem) { super(problem.detail); this.problem = problem; }
}

// say sends a message and shows the answer as it is made. A message that may be stored already is sent again under its own id.
async function say({ text, value }, messageId = crypto.randomUUID()) {
  const user = state.user;
  let id;
  transcript.put({ id: messageId, role: "user", kind: "text", state: "sending", text, value, createdAt: new Date().toISOString() });
  find("empty").hidden = true;
  try {
    id = await conversation();
  } catch (err) {
    transcript.put({ id: messageId, state: "unsent", problem: err.problem ?? { code: "error", detail: err.message } });
    return;
  }
  run(id, messageId);
  const body = { conversationId: id, messageId, ...(text ? { text } : {}), ...(value ? { value } : {}) };
  const answer = await call(user, "POST", "/api/chat/send", { body, onEvent: (event) => apply(id, event) });
  rest(id);
  if (state.id !== id || state.user !== user) return;
  if (answer.ok && answer.body) apply(id, { name: "done", data: answer.body }); // an answer in one piece
  const isOver = answer.last?.name === "done" || answer.last?.name === "error" || answer.body;
  if (answer.problem && !answer.last && transcript.get(messageId)?.state === "sending") {
    transcript.put({ id: messageId, state: "unsent", problem: answer.problem });
  }
  await refresh();
  await load(id, true);
  if (!isOver && answer.last) resume(id, user);
}

async function stop() {
  const messageId = state.turns.get(state.id);
  if (messageId) await call(state.user, "POST", `${chats}/${state.id}/cancel`, { body: { messageId } });
}

async function change(patch) {
  const id = state.id;
  const answer = await call(state.user, "PATCH", `${chats}/${id}`, { body: patch, headers: { "Idempotency-Key": crypto.randomUUID() } });
  if (!answer.ok) return toast(answer.problem.detail);
  if (state.id === id) {
    state.conversation = answer.body.conversation;
    state.etag = answer.headers.get("ETag");
    drawHead();
  }
  await refresh();
}

// remove deletes a conversation when its time to undo is over, or the page is left.
function remove() {
  const c = state.conversation;
  const user = state.user;
  const leave = async () => {
    if (!state.leaving.delete(c.id)) return;
    message.remove();
    clearInterval(clock);
    const answer = await call(user, "DELETE", `${chats}/${c.id}`, { keepalive: true, headers: { "Idempotency-Key": crypto.randomUUID() } });
    if (answer.problem && answer.status !== 404) toast(`“${titleOf(c)}” was not deleted. ${answer.problem.detail}`);
    await refresh();
  };
  const undo = element("button", { type: "button", onclick: () => {
    state.leaving.delete(c.id);
    clearInterval(clock);
    message.remove();
    if (state.user === user) { drawList(); open(c.id); }
    find("text").focus();
  } });
  const message = element("div", { className: "toast" }, element("span", {}, `“${titleOf(c)}” is deleted.`), undo);
  let seconds = UNDO;
  const tick = () => {
    if (seconds === 0) return leave();
    setText(undo, `Undo (${seconds--})`);
  };
  state.leaving.set(c.id, leave);
  const clock = setInterval(tick, 1000);
  tick();
  find("toasts").append(message);
  undo.focus();
  close();
}

addEventListener("pagehide", () => { for (const leave of state.leaving.values()) leave(); });

async function exportAll() {
  const answer = await call(state.user, "GET", "/api/chat/export", { blob: true });
  if (!answer.ok) return toast(answer.problem.detail);
  const lines = (await answer.body.text()).trimEnd().split("\n");
  const end = JSON.parse(lines.at(-1));
  if (end.type !== "end") return toast("The export was cut. Try again.");
  const address = URL.createObjectURL(answer.body);
  element("a", { href: address, download: `conversations-of-${state.user}.ndjson` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  toast(`Exported ${count(end.conversations, "conversation")}, ${count(end.messages, "message")}.`);
}

// ---- The composer

const text = find("text");

function submit() {
  const said = text.value.trim();
  if (!said || state.turns.has(state.id)) return;
  text.value = "";
  say({ text: said });
}

find("composer").addEventListener("submit", (e) => { e.preventDefault(); submit(); });
text.addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); submit(); }
  if (e.key === "Escape") stop();
});
function offerExamples() {
  find("commands").replaceChildren(...EXAMPLES.map(([title, example]) => element("button", {
    type: "button", title: example, onclick: () => { if (!state.turns.has(state.id)) say({ text: example }); },
  }, title)));
}
find("stop").addEventListener("click", () => { stop(); text.focus(); });

// ---- Buttons

find("new").addEventListener("click", () => { close(); view("chat"); text.focus(); });
find("more").addEventListener("click", older);
find("export").addEventListener("click", exportAll);
find("status").addEventListener("change", () => refresh(false));
find("do-complete").addEventListener("click", () => change({ status: state.conversation.status === "active" ? "completed" : "active" }));
find("do-archive").addEventListener("click", () => change({ status: "archived" }));
find("do-delete").addEventListener("click", remove);

function rename(isOpen) {
  find("rename").hidden = !isOpen;
  find("title").hidden = isOpen;
  if (isOpen) {
    find("new-title").value = state.conversation.title;
    find("new-title").select();
  } else {
    find("do-rename").focus();
  }
}
find("do-rename").addEventListener("click", () => rename(find("rename").hidden));
find("rename").addEventListener("submit", (e) => { e.preventDefault(); rename(false); change({ title: find("new-title").value }); });
find("rename").addEventListener("keydown", (e) => { if (e.key === "Escape") rename(false); });

function view(name) {
  document.body.dataset.view = name;
  for (const tab of document.querySelectorAll(".tabs button")) tab.setAttribute("aria-current", String(tab.dataset.view === name));
}
for (const tab of document.querySelectorAll(".tabs button")) tab.addEventListener("click", () => view(tab.dataset.view));

const SCHEMES = { "": "as the system has them", light: "light", dark: "dark" };
function paint(scheme) {
  if (scheme) document.documentElement.dataset.theme = scheme;
  else delete document.documentElement.dataset.theme;
  find("theme").setAttribute("aria-label", `Colours: ${SCHEMES[scheme]}`);
  localStorage.setItem("scheme", scheme);
}
find("theme").addEventListener("click", () => {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const order = isDark ? ["", "light", "dark"] : ["", "dark", "light"];
  paint(order[(order.indexOf(document.documentElement.dataset.theme ?? "") + 1) % 3]);
});

function toast(message) {
  const shown = element("div", { className: "toast" }, element("span", {}, message),
    element("button", { type: "button", onclick: () => shown.remove() }, "Close"));
  find("toasts").append(shown);
  setTimeout(() => shown.remove(), 8000);
}

// ---- Health and quota

let bannerTimer;
function banner(message, kind) {
  clearTimeout(bannerTimer);
  const node = find("banner");
  node.hidden = !message;
  node.dataset.kind = kind ?? "";
  setText(node, message);
  if (kind === "good") bannerTimer = setTimeout(() => banner(""), 5000);
}

const LOST = "Redis cannot be reached. Nothing is lost or made up: what cannot be kept is refused. Trying again…";
const NOBODY = "Chatkeep does not answer. Is make run still running?";

async function feel() {
  const answer = await call(null, "GET", "/health", { quiet: true });
  const health = answer.body ?? { status: "unhealthy", store: "–", redisStatus: "–" };
  const before = state.health;
  state.health = health.status;
  const says = {
    healthy: health.store === "redis" ? `Redis, ${health.redisLatencyMs?.toFixed(1)} ms` : "In memory",
    degraded: "Degraded",
    unhealthy: answer.body ? "Redis is down" : "No answer",
  }[health.status];
  find("health").dataset.state = health.status;
  setText(find("health-text"), says);
  if (health.status === "unhealthy") banner(answer.body ? LOST : NOBODY);
  else if (before === "unhealthy") {
    banner(health.store === "redis" ? "Redis is back, and so is every conversation." : "Chatkeep is back.", "good");
    await refresh();
    if (state.id) await load(state.id, true);
    resume(state.id);
  } else if (health.status === "degraded") banner(health.warning);
  else if (before === "degraded") banner("");
  state.report = health;
  if (state.about.controlsRedis) setText(document.querySelector("[data-experiment=redis]"), health.status === "unhealthy" ? "Start Redis again" : "Stop Redis");
  drawService();
}

// measure asks what the user has, which no function of the API tells: the playground reads the store's own books.
async function measure() {
  const answer = await call(state.user, "GET", "usage", { quiet: true });
  if (answer.ok) state.usage = answer.body;
  drawService();
}

const size = (n) => (n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`);
const pair = (name, value, className = "") => [element("dt", {}, name), element("dd", { className }, value)];

function drawService() {
  const h = state.report;
  if (!h) return;
  const isBad = h.status === "unhealthy";
  const latency = typeof h.redisLatencyMs === "number" ? `, ${h.redisLatencyMs.toFixed(1)} ms` : "";
  const rows = [
    ...pair("Health", h.status, isBad ? "bad" : ""),
    ...pair("Kept in", h.store === "redis" ? `Redis: ${h.redisStatus}${latency}` : h.store === "memory" ? "memory, until it ends" : "?", isBad ? "bad" : ""),
  ];
  if (h.version) rows.push(...pair("Version", `${h.version}, up for ${duration(h.uptimeSeconds)}`));
  const { usage, about: { limits } } = state;
  if (usage) {
    rows.push(...pair("Conversations", `${usage.conversations} of ${limits.conversations.toLocaleString("en")}`));
    rows.push(...pair("Quota used", `${size(usage.bytes)} of ${size(limits.bytes)}`));
    rows.push(element("dd", { className: "whole" }, element("meter", { max: limits.bytes, high: limits.bytes * 0.8, optimum: 0, value: usage.bytes, "aria-label": "Quota used" })));
  }
  rows.push(...pair("Turns", `at most ${limits.turnsPerMinute} a minute`));
  find("service").replaceChildren(...rows);
}

// ---- Experiments

const page = {
  get user() { return state.user; },
  get users() { return state.about.users; },
  conversation,
  apply,
  run,
  rest,
  async reload() {
    await refresh();
    if (state.id) await load(state.id, false);
  },
  mark(id, messageId, as) { if (state.id === id) transcript.put({ id: messageId, state: as }); },
};

function tell(text, kind = "") {
  find("result").dataset.kind = kind;
  setText(find("result"), text);
}

function offerExperiments() {
  const shown = experiments.map((x) => experiment(x.id, x.title, async () => {
    tell(`${x.about}…`, "idle");
    find("empty").hidden = true;
    try {
      const came = await x.run(page);
      tell(came.text, came.kind);
    } catch (err) {
      tell(err.problem ? `${err.problem.code}: ${err.problem.detail}` : `It broke: ${err.message}`, "bad");
    }
    drawHead();
  }));
  const redis = experiment("redis", "Stop Redis", switchRedis);
  if (!state.about.controlsRedis) {
    redis.disabled = true;
    setText(redis, "Stop Redis: after make run REDIS=1");
  }
  find("experiments").replaceChildren(...[...shown, redis].map((button) => element("li", {}, button)));
}

function experiment(id, title, run) {
  const button = element("button", { type: "button", "data-experiment": id }, title);
  button.addEventListener("click", async () => {
    button.disabled = true;
    find("result").dataset.of = "";
    await run();
    find("result").dataset.of = id;
    button.disabled = false;
    button.focus();
  });
  return button;
}

async function switchRedis() {
  const isDown = state.health === "unhealthy";
  tell(isDown ? "It starts…" : "It stops…", "idle");
  const answer = await call(null, "POST", `redis?do=${isDown ? "start" : "stop"}`);
  if (answer.problem) return tell(answer.problem.detail, "bad");
  for (let i = 0; i < 40 && (state.health === "unhealthy") === isDown; i++) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    await feel();
  }
  if (isDown) tell("Redis is back, with all that was acknowledged. What was not sent can be sent again, and is stored once.");
  else tell("Redis is stopped. Send something: it is refused at once, and kept nowhere. Then start Redis again.", "bad");
}

// ---- From here on

async function keepFeeling() {
  await feel();
  setTimeout(keepFeeling, state.health === "unhealthy" ? 1000 : 3000);
}

async function keepListing() {
  if (state.user && state.health !== "unhealthy" && document.visibilityState === "visible") await refresh();
  setTimeout(keepListing, 4000);
}

new ResizeObserver(() => transcript.settle()).observe(find("scroll"));
find("scroll").addEventListener("scroll", () => transcript.watch());
paint(localStorage.getItem("scheme") ?? "");
view("chat");
state.about = await (await fetch("about")).json();
offerUsers();
if (state.about.agent === "echo") offerExamples();
offerExperiments();
const last = sessionStorage.getItem("user");
if (state.about.users.includes(last)) signIn(last);
keepFeeling();
keepListing();
