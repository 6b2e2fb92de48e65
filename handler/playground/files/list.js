import { call } from "./api.js";
import { element, find } from "./dom.js";
import { relative } from "./time.js";

const PAGE = 30; // conversations that "Older ones" adds
const MOST = 100; // that one request may ask for

// List shows the conversations of a user, last updated first.
export class List {
  #root = find("conversations");
  #open; // is told the id of the conversation that is chosen
  #user = null;
  #wanted = PAGE;
  #conversations = [];
  #items = new Map(); // <li> by id
  #hidden = new Set(); // ids that are to be deleted
  #current = null; // the id of the open one

  constructor(open) {
    this.#open = open;
    this.#root.addEventListener("keydown", (e) => this.#step(e));
    find("more").addEventListener("click", () => { this.#wanted += PAGE; this.refresh(false); });
    find("status").addEventListener("change", () => this.refresh(false));
  }

  belongTo(user) {
    this.#user = user;
    this.#wanted = PAGE;
    this.#conversations = [];
    this.#draw();
    return this.refresh(false);
  }

  // refresh reads as much of the list as is shown.
  async refresh(quiet = true) {
    const asked = { user: this.#user, wanted: this.#wanted, status: find("status").value };
    const read = [];
    let cursor = null;
    do {
      const body = { limit: Math.min(MOST, asked.wanted - read.length), ...(cursor && { cursor }), ...(asked.status && { status: asked.status }) };
      const answer = await call(asked.user, "POST", "/api/chat/list-conversations", { quiet, body });
      if (!answer.ok || asked.user !== this.#user || asked.status !== find("status").value) return;
      read.push(...answer.body.conversations);
      cursor = answer.body.nextCursor;
    } while (cursor && read.length < asked.wanted);
    this.#conversations = [...new Map(read.map((c) => [c.id, c])).values()]; // one that is updated meanwhile may come twice
    find("more").hidden = !cursor;
    this.#draw();
  }

  get(id) { return this.#conversations.find((c) => c.id === id); }

  mark(id) {
    this.#current = id;
    this.#draw();
  }

  hide(id, isHidden) {
    if (isHidden) this.#hidden.add(id);
    else this.#hidden.delete(id);
    this.#draw();
  }

  #draw() {
    const visible = this.#conversations.filter((c) => !this.#hidden.has(c.id));
    const ids = new Set(visible.map((c) => c.id));
    for (const [id, item] of this.#items) {
      if (!ids.has(id)) { item.remove(); this.#items.delete(id); }
    }
    this.#root.querySelector(".nothing")?.remove();
    visible.forEach((c, i) => {
      const item = this.#item(c);
      if (this.#root.children[i] !== item) this.#root.insertBefore(item, this.#root.children[i] ?? null);
    });
    if (visible.length === 0) this.#root.append(element("li", { className: "nothing" }, "No conversation here yet."));
  }

  // item is drawn anew only when it is another, so that it keeps the focus.
  #item(c) {
    let item = this.#items.get(c.id);
    if (!item) {
      item = element("li", {}, element("button", { type: "button", "data-id": c.id, onclick: () => this.#open(c.id) }));
      this.#items.set(c.id, item);
    }
    const isCurrent = String(c.id === this.#current);
    const drawn = JSON.stringify([c.version, c.expiresAt, isCurrent]);
    if (item.drawn !== drawn) {
      item.drawn = drawn;
      item.firstChild.setAttribute("aria-current", isCurrent);
      item.firstChild.replaceChildren(...parts(c));
    }
    return item;
  }

  #step(e) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[e.key];
    if (!step) return;
    e.preventDefault();
    const buttons = [...this.#root.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement) + step;
    buttons[Math.max(0, Math.min(buttons.length - 1, at))]?.focus();
  }
}

function parts({ title, status, lastMessage: last, updatedAt, expiresAt }) {
  const said = last ? (last.role === "user" ? "You: " : "") + last.text : "Nothing was said yet";
  return [
    element("span", { className: "name" }, title || "Untitled"),
    relative("ago", updatedAt),
    element("span", { className: "preview" }, said),
    element("span", { className: "foot" }, status === "active" ? null : element("span", { className: "chip", "data-status": status }, status), relative("left", expiresAt)),
  ];
}
