// Calls of the API. Nothing else here knows tokens, and none is ever shown.
import { show } from "./inspector.js";

const tokens = new Map(); // by user

async function tokenOf(user) {
  if (!tokens.has(user)) {
    const answer = await fetch(`/playground/token?user=${user}`, { method: "POST" });
    if (!answer.ok) throw new Error(await answer.text());
    tokens.set(user, (await answer.json()).token);
  }
  return tokens.get(user);
}

const SHOWN = ["content-type", "etag", "idempotency-replayed", "location", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate", "x-request-id"];

// call makes a request as a user, or as nobody. It never throws: an answer that is no success has a problem, and so has none at all, with the
// status 0; one that options.signal ended has neither, but isCut. Events of a stream go to options.onEvent as they come; of those the answer
// has the last.
export async function call(user, method, path, options = {}) {
  const headers = { ...options.headers };
  if (options.body !== undefined) headers["Content-Type"] ??= "application/json";
  if (options.onEvent) headers["Accept"] = "text/event-stream, application/json";
  const exchange = { user, method, path, headers: { ...headers }, body: options.body, state: "asking" };
  const told = () => { if (!options.quiet) show(exchange); };
  const answer = { ok: false, status: 0, headers: new Headers(), body: null, problem: null, last: null, isCut: false };
  const started = performance.now();
  const sinceStart = () => performance.now() - started;
  told();
  try {
    const response = await fetched(user, method, path, headers, options);
    Object.assign(answer, { ok: response.ok, status: response.status, headers: response.headers });
    Object.assign(exchange, { status: response.status, ms: sinceStart(), answerHeaders: shown(response.headers) });
    await read(response, answer, exchange, options, told);
    exchange.state = "answered";
  } catch (err) {
    answer.ok = false;
    answer.isCut = options.signal?.aborted ?? false;
    exchange.state = answer.isCut ? "hung up" : "no answer";
    if (!answer.isCut) answer.problem = { code: "no_answer", detail: err instanceof TypeError ? LOST : err.message };
  }
  Object.assign(exchange, { total: sinceStart(), problem: answer.problem });
  told();
  return answer;
}

const LOST = "The connection was cut, or there is nobody. What was sent may be stored.";

// read takes the body of a response, which is an event stream, a file, or a text that may be JSON.
async function read(response, answer, exchange, options, told) {
  const type = response.headers.get("Content-Type") ?? "";
  if (type.startsWith("text/event-stream")) {
    exchange.text = "";
    for await (const event of events(response.body)) {
      answer.last = event;
      if (exchange.text.length < 20000) exchange.text += `${event.id ?? ""} ${event.name} ${JSON.stringify(event.data)}\n`;
      told();
      try { options.onEvent(event); } catch (err) { reportError(err); } // it is a bug, and not the connection's fault
    }
    if (answer.last?.name === "error") answer.problem = answer.last.data;
  } else if (options.blob && response.ok) {
    answer.body = await response.blob();
    exchange.text = `${answer.body.size} bytes`;
  } else {
    exchange.text = await response.text();
    if (/^application\/(problem\+)?json\b/.test(type)) answer.body = JSON.parse(exchange.text);
    if (!response.ok) answer.problem = answer.body ?? { code: `status_${response.status}`, detail: exchange.text };
  }
}

// fetched asks once more with a new token when the first was refused: make run may have a new key.
async function fetched(user, method, path, headers, options) {
  const ask = async () => fetch(path, {
    method, signal: options.signal, keepalive: options.keepalive ?? false,
    headers: user ? { ...headers, Authorization: `Bearer ${await tokenOf(user)}` } : headers,
    body: options.body === undefined ? undefined : JSON.stringify(options.body),
  });
  const response = await ask();
  if (response.status !== 401 || !user) return response;
  tokens.delete(user);
  return ask();
}

function shown(headers) {
  return SHOWN.filter((name) => headers.has(name)).map((name) => `${name}: ${headers.get(name)}`);
}

// events reads a stream as the API writes it: id, event and one line of JSON, then an empty line.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      const event = {};
      for (const line of rest.slice(0, end).split("\n")) {
        const colon = line.indexOf(": ");
        const text = line.slice(colon + 2);
        if (line.startsWith("id:")) event.id = text;
        if (line.startsWith("event:")) event.name = text;
        if (line.startsWith("data:")) event.data = JSON.parse(text);
      }
      if (event.name) yield event;
    }
  }
}

// isLater compares the ids of two events: <question>-<place>.
export function isLater(id, than) {
  if (!id || !than) return true;
  const [a, b] = [id, than].map((text) => text.split("-").map(Number));
  return a[0] !== b[0] ? a[0] > b[0] : a[1] > b[1];
}
