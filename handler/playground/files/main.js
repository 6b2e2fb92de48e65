import { call } from "./api.js";
import { Chat } from "./chat.js";
import { element, find, setText } from "./dom.js";
import { offerExperiments, renameRedis } from "./experiments.js";
import { List } from "./list.js";
import { view } from "./look.js";
import { toast, undoable } from "./notices.js";
import { Service } from "./service.js";
import { relative } from "./time.js";
import { Transcript } from "./transcript.js";

const UNDO = 8; // seconds
const EXAMPLES = [
  ["A long answer", "Rome has nine hundred churches, and each of them has a story that begins with a door."],
  ["A card", "/card"],
  ["Suggestions", "/suggest"],
  ["Half an answer", "/fail This answer breaks off here, and stays as far as it came."],
  ["No answer", "/stall"],
]; // to the echo; another agent has no such commands

const about = await (await fetch("/playground/about")).json();
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const nameOf = (user) => user[0].toUpperCase() + user.slice(1);
const text = find("text");

const transcript = new Transcript(find("transcript"), find("scroll"), {
  again: (m) => chat.say(m, m.state === "unsent" ? m.id : undefined),
  submit: (value) => chat.say({ value }),
  say: (text) => chat.say({ text }),
});
const list = new List(open);
const service = new Service(about.limits, { changed: () => renameRedis(service.isDown), back: catchUp });
let chat = null; // that is open; nobody is signed in without

// ---- Who

function offerUsers() {
  find("choices").replaceChildren(...about.users.map((user) => element("button", { type: "button", onclick: () => signIn(user) },
    element("span", { className: "initial", "aria-hidden": "true" }, user[0].toUpperCase()), nameOf(user))));
}

function signIn(user, id = null) {
  sessionStorage.setItem("user", user);
  find("users").replaceChildren(...about.users.map((other) => element("button", {
    type: "button", "aria-pressed": String(other === user), onclick: () => { if (other !== user) signIn(other); },
  }, nameOf(other))));
  find("sign-in").hidden = true;
  find("app").hidden = false;
  list.belongTo(user);
  show(user, id);
  text.focus();
}

// ---- The open conversation

// show leaves the conversation that is open for another, or for a new one.
function show(user, id) {
  chat?.leave();
  chat = new Chat(user, id, transcript, { changed, gone });
  rename(false);
  view("chat");
  changed();
  chat.catchUp(false);
}

function open(id) { show(chat.user, id); }
function renew() { show(chat.user, null); }

function gone() {
  renew();
  toast("That conversation is not there.");
}

function changed() {
  drawHead();
  list.mark(chat.id);
  history.replaceState(null, "", chat.id ? `?conversation=${chat.id}` : location.pathname);
  list.refresh();
  service.measure(chat.user);
}

function drawHead() {
  const { conversation: c, turn } = chat;
  find("chat-head").hidden = !c;
  find("earlier").hidden = !chat.hasEarlier;
  find("empty").hidden = transcript.size > 0 || Boolean(chat.id && !c);
  find("stop").hidden = !turn;
  find("send").hidden = Boolean(turn);
  if (!c) return;
  setText(find("title"), c.title || "Untitled");
  find("facts").replaceChildren(
    element("span", { className: "chip", "data-status": c.status }, c.status),
    element("span", {}, "updated ", relative("ago", c.updatedAt)), relative("left", c.expiresAt), element("span", {}, count(c.messageCount, "message")));
  setText(find("do-complete"), c.status === "active" ? "Complete" : "Make active");
  find("do-archive").hidden = c.status === "archived";
}

// catchUp shows what others have done, this user on another page among them.
async function catchUp() {
  if (!chat) return;
  await Promise.all([list.refresh(), service.measure(chat.user)]);
  if (list.get(chat.id)?.version !== chat.conversation?.version || transcript.pending) await chat.catchUp();
}

async function update(patch) {
  try {
    await chat.update(patch);
  } catch (err) {
    toast(err.message);
  }
}

function rename(isOpen) {
  find("rename").hidden = !isOpen;
  find("title").hidden = isOpen;
  if (!isOpen) return;
  find("new-title").value = chat.conversation.title;
  find("new-title").select();
}

function endRename() {
  rename(false);
  find("do-rename").focus();
}

function remove() {
  const { user, id, path, conversation: { title } } = chat;
  const name = `“${title || "Untitled"}”`;
  list.hide(id, true);
  undoable(`${name} is deleted.`, UNDO, async () => {
    const answer = await call(user, "DELETE", path, { keepalive: true, headers: { "Idempotency-Key": crypto.randomUUID() } });
    if (answer.problem && answer.status !== 404) toast(`${name} was not deleted. ${answer.problem.detail}`);
    await list.refresh();
    list.hide(id, false);
  }, () => {
    list.hide(id, false);
    if (user === chat.user) open(id);
    text.focus();
  });
  renew();
}

async function exportAll() {
  const answer = await call(chat.user, "GET", "/api/chat/export", { blob: true });
  if (!answer.ok) return toast(answer.problem.detail);
  const lines = (await answer.body.text()).trimEnd().split("\n");
  const end = JSON.parse(lines.at(-1));
  if (end.type !== "end") return toast("The export was cut. Try again.");
  const address = URL.createObjectURL(answer.body);
  element("a", { href: address, download: `conversations-of-${chat.user}.ndjson` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  toast(`Exported ${count(end.conversations, "conversation")}, ${count(end.messages, "message")}.`);
}

// ---- What is pressed

function submit() {
  const said = text.value.trim();
  if (!said || chat.turn) return;
  text.value = "";
  chat.say({ text: said });
}

function offerExamples() {
  find("commands").replaceChildren(...EXAMPLES.map(([title, example]) => element("button", {
    type: "button", title: example, onclick: () => { if (!chat.turn) chat.say({ text: example }); },
  }, title)));
}

const presses = {
  "new": () => { renew(); text.focus(); },
  "export": exportAll,
  "earlier": () => chat.earlier(),
  "stop": () => { chat.cancel(); text.focus(); },
  "do-rename": () => (find("rename").hidden ? rename(true) : endRename()),
  "do-complete": () => update({ status: chat.conversation.status === "active" ? "completed" : "active" }),
  "do-archive": () => update({ status: "archived" }),
  "do-delete": remove,
};
for (const [id, press] of Object.entries(presses)) find(id).addEventListener("click", press);

find("composer").addEventListener("submit", (e) => { e.preventDefault(); submit(); });
text.addEventListener("keydown", (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); submit(); }
  if (e.key === "Escape") chat.cancel();
});
find("rename").addEventListener("submit", (e) => { e.preventDefault(); endRename(); update({ title: find("new-title").value }); });
find("rename").addEventListener("keydown", (e) => { if (e.key === "Escape") endRename(); });

// ---- From here on

async function keepFeeling() {
  await service.feel();
  setTimeout(keepFeeling, service.isDown ? 1000 : 3000);
}

async function keepCatchingUp() {
  if (!service.isDown && document.visibilityState === "visible") await catchUp();
  setTimeout(keepCatchingUp, 4000);
}

offerUsers();
if (about.agent === "echo") offerExamples();
offerExperiments(about.controlsRedis, () => ({ chat, users: about.users, service }), async () => {
  drawHead();
  await chat.catchUp();
});
const last = sessionStorage.getItem("user");
if (about.users.includes(last)) signIn(last, new URLSearchParams(location.search).get("conversation"));
keepFeeling();
keepCatchingUp();
