import { call } from "./api.js";

// Refused is an answer that is no success where one is needed to go on.
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

// Chat is a conversation that is open, or one that starts with the first message. What comes for it when it has been left shows nowhere.
export class Chat {
  user;
  id; // null until it is started
  conversation = null; // as it was read last
  turn = null; // the message whose turn this page waits for
  isLeft = false;
  hasEarlier = false;
  #transcript;
  #on; // {changed(), gone()}
  #etag = null;
  #starting = null;
  #startKey = crypto.randomUUID(); // an answer that was lost is had again
  #reads = 0;
  #line = new AbortController();
  #isSending = false; // a message has not come yet, as far as is known

  constructor(user, id, transcript, on) {
    this.user = user;
    this.id = id;
    this.#transcript = transcript;
    this.#on = on;
    transcript.clear();
  }

  get path() { return `/api/chat/conversations/${encodeURIComponent(this.id)}`; }

  // leave hangs up, but not before the message that is being sent has come.
  leave() {
    this.isLeft = true;
    if (!this.#isSending) this.#line.abort();
  }

  // start starts the conversation unless it is.
  async start() {
    if (this.id) return;
    this.#starting ??= call(this.user, "POST", "/api/chat/start", { headers: { "Idempotency-Key": this.#startKey } });
    const answer = await this.#starting;
    this.#starting = null;
    if (!answer.ok) throw new Refused(answer.problem);
    this.id = answer.body.conversationId;
    this.conversation = answer.body.conversation;
    if (this.isLeft) return;
    this.#transcript.show(answer.body.messages);
    this.#on.changed();
  }

  // load reads what is stored, unless it is what was read last. What a turn or a later read has overtaken does not show.
  async load(quiet = true) {
    const read = ++this.#reads;
    const headers = this.#etag ? { "If-None-Match": this.#etag } : {};
    const answer = await call(this.user, "GET", this.path, { quiet, headers });
    if (this.isLeft || read !== this.#reads) return;
    if (answer.status === 404) this.#on.gone();
    if (!answer.ok) return;
    const { conversation, messages, hasMore } = answer.body;
    this.#keep(conversation, answer);
    if (!(messages[0]?.seq > this.#transcript.firstSeq)) this.hasEarlier = hasMore;
    this.#transcript.show(messages);
    this.#on.changed();
  }

  async earlier() {
    const answer = await call(this.user, "GET", `${this.path}?before=${this.#transcript.firstSeq}`);
    if (this.isLeft || !answer.ok) return;
    this.#transcript.stay(() => {
      this.hasEarlier = answer.body.hasMore;
      for (const m of answer.body.messages) this.#transcript.put(m);
      this.#on.changed();
    });
  }

  // catchUp shows what was stored meanwhile, and goes on with a turn that runs.
  async catchUp(quiet = true) {
    if (!this.id || this.turn) return;
    await this.load(quiet);
    await this.#resume();
  }

  // say sends a message and shows the answer as it is made. A message that may be stored already is sent again under its own id.
  async say({ text, value }, messageId = crypto.randomUUID()) {
    this.#transcript.put({ id: messageId, role: "user", kind: "text", state: "sending", text, value, createdAt: new Date().toISOString() });
    this.#isSending = true;
    const problem = await this.during(messageId, () => this.#send({ messageId, text, value }));
    this.#isSending = false;
    if (this.isLeft) return;
    if (problem && this.#transcript.get(messageId).state === "sending") this.mark(messageId, "unsent", problem);
    await this.catchUp();
  }

  // send returns the problem of a turn that has not begun, or failed.
  async #send(message) {
    try {
      await this.start();
    } catch (err) {
      return err.problem;
    }
    const answer = await this.hear("POST", "/api/chat/send", { body: { conversationId: this.id, ...message } });
    if (answer.ok && answer.body) this.apply({ name: "done", data: answer.body }); // in one piece
    return answer.problem;
  }

  // resume goes on with the turn that runs, from the last of its events that is known.
  async #resume() {
    const messageId = this.#transcript.pending?.id;
    if (this.isLeft || this.turn || !messageId) return;
    const after = this.#transcript.lastEvent;
    const answer = await this.during(messageId, () => this.hear("GET", `${this.path}/stream`, { headers: after ? { "Last-Event-ID": after } : {} }));
    if (answer.ok && !this.isLeft) await this.load();
  }

  // hear makes a request whose events show.
  hear(method, path, { signal = this.#line.signal, onEvent, ...options }) {
    return call(this.user, method, path, { ...options, signal, onEvent: (event) => { this.apply(event); onEvent?.(event); } });
  }

  // during does what waits for the turn of a message.
  async during(messageId, work) {
    this.turn = messageId;
    this.#reads++;
    this.#on.changed();
    try {
      return await work();
    } finally {
      this.turn = null;
      if (!this.isLeft) this.#on.changed();
    }
  }

  apply(event) {
    this.#isSending = false;
    if (this.isLeft) this.#line.abort();
    else this.#transcript.apply(event);
  }

  mark(messageId, state, problem) {
    if (!this.isLeft) this.#transcript.put({ id: messageId, state, problem });
  }

  async cancel() {
    if (this.turn && this.id) await call(this.user, "POST", `${this.path}/cancel`, { body: { messageId: this.turn } });
  }

  async update(patch) {
    const answer = await call(this.user, "PATCH", this.path, { body: patch, headers: { "Idempotency-Key": crypto.randomUUID() } });
    if (!answer.ok) throw new Refused(answer.problem);
    this.#keep(answer.body.conversation, answer);
    if (!this.isLeft) this.#on.changed();
  }

  #keep(conversation, answer) {
    this.conversation = conversation;
    this.#etag = answer.headers.get("ETag");
  }
}
