import { call } from "./api.js";
import { element, find, setText } from "./dom.js";

const SEND = "/api/chat/send";
const outcome = ({ status, problem }) => (problem ? `${status} ${problem.code}` : String(status));
const refused = (answer) => bad(`${outcome(answer)}: ${answer.problem.detail}`);
const good = (text) => ({ text, kind: "good" });
const bad = (text) => ({ text, kind: "bad" });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function twice({ chat }) {
  await chat.start();
  const request = { body: { conversationId: chat.id, text: "Send me once, please." }, headers: { "Idempotency-Key": crypto.randomUUID() } };
  const answers = await Promise.all([call(chat.user, "POST", SEND, request), call(chat.user, "POST", SEND, request)]);
  const failed = answers.find((a) => a.problem);
  if (failed) return refused(failed);
  const ids = new Set(answers.map((a) => a.body.message.id));
  const replayed = answers.filter((a) => a.headers.get("Idempotency-Replayed") === "true").length;
  return ids.size === 1 ? good(`Both were answered, ${replayed} of them from memory, and the message is stored once.`) : bad("It is stored twice.");
}

async function ten({ chat }) {
  await chat.start();
  const requests = Array.from({ length: 10 }, (_, i) => ({ body: { conversationId: chat.id, text: `Message ${i + 1} of ten` } }));
  const answers = await Promise.all(requests.map((request) => call(chat.user, "POST", SEND, request)));
  const stored = new Set(answers.filter((a) => a.ok).map((a) => a.body.message.seq)).size;
  const outcomes = [...Map.groupBy(answers, outcome)].map(([what, all]) => `${all.length} × ${what}`).join(", ");
  const isRight = stored === answers.filter((a) => a.ok).length && stored > 0 && answers.every((a) => a.ok || a.status === 409 || a.status === 429);
  return (isRight ? good : bad)(`${outcomes}; ${stored} stored, each with its answer behind it.`);
}

const KITCHEN = "The kitchen opens at noon. Ask for the table by the window, and bring some time: the pasta is made when you order it, " +
  "not before, and nobody in this house has ever been in a hurry.";

async function hangUp({ chat }) {
  await chat.start();
  const messageId = crypto.randomUUID();
  const cut = new AbortController();
  const heard = { deltas: [], whole: null, last: null };
  const onEvent = ({ id, name, data }) => {
    heard.last = id;
    if (name === "message") heard.whole = data.text;
    if (name === "delta") heard.deltas.push(data.text);
    if (heard.deltas.length === 4) cut.abort();
  };
  return chat.during(messageId, async () => {
    const first = await chat.hear("POST", SEND, { body: { conversationId: chat.id, messageId, text: KITCHEN }, onEvent, signal: cut.signal });
    if (first.problem) return refused(first);
    if (!first.isCut) return bad("The answer was over before the cut.");
    const left = heard.last;
    chat.mark(messageId, "cut");
    await pause(1500);
    chat.mark(messageId, "pending");
    const rest = await chat.hear("GET", `${chat.path}/stream`, { headers: { "Last-Event-ID": left }, onEvent });
    if (rest.problem) return refused(rest);
    return heard.deltas.join("") === heard.whole ? good(`Gone after event ${left}, back 1.5 s later: no word is missing, none came twice.`) : bad("Words are missing, or came twice.");
  });
}

async function asAnother({ chat, users }) {
  await chat.start();
  const other = users.find((user) => user !== chat.user);
  const answer = await call(other, "GET", chat.path);
  const name = other[0].toUpperCase() + other.slice(1);
  return answer.status === 404 ? good(`${name} is told 404 ${answer.problem.code}: what one may not see is not there.`) : bad(`${name} is told ${outcome(answer)}.`);
}

async function switchRedis({ service }) {
  const isDown = service.isDown;
  const answer = await call(null, "POST", `/playground/redis?do=${isDown ? "start" : "stop"}`);
  if (answer.problem) return refused(answer);
  for (let i = 0; i < 40 && service.isDown === isDown; i++) {
    await pause(250);
    await service.feel();
  }
  if (service.isDown) return bad("Redis is stopped. Send something: it is refused at once, and kept nowhere. Then start Redis again.");
  return good("Redis is back, with all that was acknowledged. What was not sent can be sent again, and is stored once.");
}

const experiments = [
  { id: "twice", title: "Send twice, one key", doing: "The same request, twice at once, with one Idempotency-Key…", run: twice },
  { id: "ten", title: "Send ten at once", doing: "A conversation takes one message at a time; the others wait their turn…", run: ten },
  { id: "hang-up", title: "Hang up, come back", doing: "The stream is cut in the middle; the turn goes on, and the rest is fetched…", run: hangUp },
  { id: "other", title: "As another user", doing: "The same address with somebody else’s token…", run: asAnother },
  { id: "redis", title: "Stop Redis", doing: "It takes a moment…", run: switchRedis },
];

function tell({ text, kind }, of = "") {
  const result = find("result");
  Object.assign(result.dataset, { kind, of });
  setText(result, text);
}

function button({ id, title, doing, run }, setting, done) {
  const made = element("button", { type: "button", "data-experiment": id }, title);
  made.addEventListener("click", async () => {
    made.disabled = true;
    tell({ text: doing, kind: "idle" });
    let came;
    try {
      came = await run(setting());
    } catch (err) {
      came = bad(err.problem ? `${err.problem.code}: ${err.problem.detail}` : `It broke: ${err.message}`);
    }
    await done();
    tell(came, id);
    made.disabled = false;
    if (document.activeElement === document.body) made.focus();
  });
  return made;
}

// offerExperiments shows what can be tried. setting returns what it is tried with, {chat, users, service}; done is told when it is over.
export function offerExperiments(controlsRedis, setting, done) {
  find("experiments").replaceChildren(...experiments.map((e) => element("li", {}, button(e, setting, done))));
  if (controlsRedis) return;
  const redis = redisButton();
  redis.disabled = true;
  setText(redis, "Stop Redis: after make run REDIS=1");
}

// renameRedis has the button say what it does now.
export function renameRedis(isDown) {
  const redis = redisButton();
  if (!redis.disabled) setText(redis, isDown ? "Start Redis again" : "Stop Redis");
}

const redisButton = () => document.querySelector("[data-experiment=redis]");
