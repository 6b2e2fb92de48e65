import { element } from "./dom.js";
import { isLater } from "./api.js";
import { renderCard } from "./card.js";
import { relative } from "./time.js";

const NOTES = {
  sending: "Sending…",
  failed: "No whole answer came.",
  cancelled: "You stopped this.",
  partial: "Only this much arrived.",
  cut: "You hung up. The turn goes on without you.",
};

// Transcript shows the messages of one conversation, however they come: as a page, as events, or as a whole answer. An event that it has
// had changes nothing.
export class Transcript {
  #root;
  #scroll;
  #act; // {again(message), submit(value), say(text)}
  #messages = new Map(); // by id
  #elements = new Map();
  #status = "";
  #follows = true;
  lastEvent = null;

  constructor(root, scroll, act) {
    this.#root = root;
    this.#scroll = scroll;
    this.#act = act;
    scroll.addEventListener("scroll", () => this.#watch());
    new ResizeObserver(() => this.#settle()).observe(scroll);
  }

  clear() {
    this.#messages.clear();
    this.#elements.clear();
    this.#root.replaceChildren();
    this.#status = "";
    this.#follows = true;
    this.lastEvent = null;
  }

  get size() { return this.#messages.size; }
  get(id) { return this.#messages.get(id); }

  // firstSeq is the place of the earliest message that is stored.
  get firstSeq() { return Math.min(...[...this.#messages.values()].map((m) => m.seq ?? Infinity)); }

  // show is the newest page of the conversation as it is stored. It has the last word of what it holds.
  show(messages) {
    const stored = new Set(messages.map((m) => m.id));
    for (const [id, m] of this.#messages) {
      if (!stored.has(id) && (m.state === "streaming" || m.seq > messages[0]?.seq)) this.#drop(id);
    }
    for (const m of messages) this.put(m);
  }

  // stay makes a change above what is read, which stays where it is.
  stay(change) {
    const below = this.#scroll.scrollHeight - this.#scroll.scrollTop;
    change();
    this.#scroll.scrollTop = this.#scroll.scrollHeight - below;
  }

  // pending is the question whose turn runs.
  get pending() { return [...this.#messages.values()].findLast((m) => m.state === "pending"); }

  put(change) {
    const known = this.#messages.get(change.id);
    const message = { ...known, ...change };
    if (known && change.state !== "unsent" && change.state !== "failed") delete message.problem;
    this.#messages.set(message.id, message);
    // What is the same stays as it is drawn, with what is chosen in a card.
    if (!known || JSON.stringify(known) !== JSON.stringify(message)) this.#draw(message);
  }

  #drop(id) {
    this.#messages.delete(id);
    this.#elements.get(id)?.remove();
    this.#elements.delete(id);
  }

  apply(event) {
    if (!isLater(event.id, this.lastEvent)) return;
    this.lastEvent = event.id ?? this.lastEvent;
    const data = event.data;
    switch (event.name) {
      case "message.accepted":
        this.put(data.message);
        break;
      case "status":
        this.#status = data.text;
        if (this.pending) this.#draw(this.pending);
        break;
      case "delta":
        this.#say(data);
        break;
      case "message":
      case "card":
        this.put(data);
        break;
      case "suggested":
        this.put({ id: data.messageId, suggestedActions: data.suggestedActions });
        break;
      case "done":
        this.#status = "";
        this.put(data.message);
        data.messages.forEach((m) => this.put(m));
        break;
      case "error":
        this.#status = "";
        if (this.pending) this.put({ id: this.pending.id, state: "failed", problem: data });
        break;
    }
  }

  #say({ messageId, text }) {
    const known = this.#messages.get(messageId);
    if (!known) {
      this.put({ id: messageId, role: "assistant", kind: "text", state: "streaming", text });
      if (this.pending) this.#draw(this.pending);
      return;
    }
    known.text += text;
    this.#elements.get(messageId).querySelector(".body").append(text);
    this.#settle();
  }

  // watch sees the reader scroll: whoever looks at the end stays there.
  #watch() { this.#follows = this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight < 60; }
  #settle() { if (this.#follows) this.#scroll.scrollTop = this.#scroll.scrollHeight; }

  #draw(m) {
    if (m.state === "sending") this.#follows = true;
    const drawn = element("article", {
      className: `message ${m.role} ${m.value ? "value" : ""} ${m.state === "streaming" ? "streaming" : ""}`, "data-state": m.state, "data-id": m.id,
      "aria-busy": String(m.state === "streaming"), "aria-label": m.role === "user" ? "You" : "Answer",
    });
    if (m.text) drawn.append(element("div", { className: "body" }, m.text));
    if (m.value) drawn.append(element("div", { className: "body" }, JSON.stringify(m.value, null, 1).replace(/\n\s*/g, " ")));
    if (m.cardJson) drawn.append(renderCard(m.cardJson, this.#act.submit));
    if (m.suggestedActions) {
      drawn.append(element("div", { className: "suggested", role: "group", "aria-label": "You could say" },
        ...m.suggestedActions.map((a) => element("button", { type: "button", onclick: () => this.#act.say(a.value) }, a.title))));
    }
    drawn.append(this.#note(m));
    const old = this.#elements.get(m.id);
    this.#elements.set(m.id, drawn);
    if (old) old.replaceWith(drawn);
    else this.#place(m, drawn);
    this.#settle();
  }

  // place keeps messages in the order of the conversation; what is not stored yet is last.
  #place(m, drawn) {
    const next = [...this.#messages.values()]
      .filter((other) => other.id !== m.id && m.seq && (other.seq ?? Infinity) > m.seq)
      .sort((a, b) => (a.seq ?? Infinity) - (b.seq ?? Infinity))[0];
    this.#root.insertBefore(drawn, next ? this.#elements.get(next.id) : null);
  }

  #note(m) {
    const note = element("p", { className: "note" });
    const answered = [...this.#messages.values()].some((other) => other.state === "streaming");
    if (m.state === "pending" && !answered) {
      note.append(element("span", { className: "dots", "aria-hidden": "true" }, ...[1, 2, 3].map(() => element("i"))), this.#status || "Waiting for the answer");
    } else if (m.state === "unsent") {
      note.classList.add("bad");
      note.append(`Not sent: ${m.problem.detail}`);
    } else if (NOTES[m.state]) {
      if (m.state === "failed") note.classList.add("bad");
      if (m.state === "partial" || m.state === "cut") note.classList.add("warn");
      note.append(m.problem?.code ? `${NOTES[m.state]} (${m.problem.code})` : NOTES[m.state]);
    }
    if (m.state === "unsent" || m.state === "failed") {
      note.append(element("button", { type: "button", onclick: () => this.#act.again(m) }, "Send again"));
    } else if (m.createdAt && m.state === "complete") {
      const time = relative("ago", m.createdAt);
      time.classList.add("when");
      note.append(time);
      note.classList.add("quietly");
    }
    return note;
  }
}
