import { call } from "./api.js";

const count = (all) => Object.entries(all.reduce((n, key) => ({ ...n, [key]: (n[key] ?? 0) + 1 }), {})).map(([key, n]) => `${n} × ${key}`).join(", ");
const outcome = (a) => (a.problem ? `${a.status} ${a.problem.code}` : String(a.status));
const good = (text) => ({ text });
const bad = (text) => ({ text, kind: "bad" });

// Each experiment returns what it came to. page is what main.js offers.
export const experiments = [
  {
    id: "twice", title: "Send twice, one key", about: "The same request, twice at once, with one Idempotency-Key",
    async run(page) {
      const id = await page.conversation();
      const headers = { "Idempotency-Key": crypto.randomUUID() };
      const body = { conversationId: id, text: "Send me once, please." };
      const answers = await Promise.all([1, 2].map(() => call(page.user, "POST", "/api/chat/send", { body, headers })));
      await page.reload();
      const failed = answers.find((a) => a.problem);
      if (failed) return bad(`${outcome(failed)}: ${failed.problem.detail}`);
      const ids = new Set(answers.map((a) => a.body.message.id));
      const replayed = answers.filter((a) => a.headers.get("Idempotency-Replayed") === "true").length;
      return ids.size === 1 ? good(`Both were answered, ${replayed} of them from memory, and the message is stored once.`) : bad("It is stored twice.");
    },
  },
  {
    id: "ten", title: "Send ten at once", about: "A conversation takes one message at a time; the others wait their turn",
    async run(page) {
      const id = await page.conversation();
      const answers = await Promise.all(Array.from({ length: 10 }, (_, i) => call(page.user, "POST", "/api/chat/send", { body: { conversationId: id, text: `Message ${i + 1} of ten` } })));
      await page.reload();
      const seqs = new Set(answers.filter((a) => a.ok).map((a) => a.body.message.seq));
      const text = `${count(answers.map(outcome))}; ${seqs.size} stored, each with its answer behind it.`;
      return seqs.size > 0 && answers.every((a) => a.ok || a.status === 409 || a.status === 429) ? good(text) : bad(text);
    },
  },
  {
    id: "hang-up", title: "Hang up, come back", about: "Cuts a stream in the middle; the turn goes on, and the rest is fetched",
    async run(page) {
      const id = await page.conversation();
      const text = "The kitchen opens at noon. Ask for the table by the window, and bring some time: the pasta is made when you order it, not before, and nobody in this house has ever been in a hurry.";
      const cut = new AbortController();
      const messageId = crypto.randomUUID();
      let said = "", deltas = 0, after = "", whole = null;
      const listen = (event) => {
        page.apply(id, event);
        after = event.id;
        if (event.name === "message") whole = event.data.text;
        if (event.name === "delta") { said += event.data.text; deltas++; }
        if (deltas === 4 && !cut.signal.aborted) cut.abort();
      };
      page.run(id, messageId);
      try {
        const answer = await call(page.user, "POST", "/api/chat/send", { body: { conversationId: id, messageId, text }, onEvent: listen, signal: cut.signal });
        page.rest(id);
        return bad(answer.problem ? `${outcome(answer)}: ${answer.problem.detail}` : "It ended before the cut.");
      } catch (err) {
        if (!cut.signal.aborted) throw err;
      }
      const left = after;
      page.mark(id, messageId, "cut");
      await new Promise((resolve) => setTimeout(resolve, 1500));
      page.mark(id, messageId, "pending");
      const rest = await call(page.user, "GET", `/api/chat/conversations/${id}/stream`, { headers: { "Last-Event-ID": left }, onEvent: listen });
      page.rest(id);
      await page.reload();
      if (rest.problem) return bad(`${outcome(rest)}: ${rest.problem.detail}`);
      return said === whole ? good(`Gone after event ${left}, back 1.5 s later: no word is missing, none came twice.`) : bad("Words are missing, or came twice.");
    },
  },
  {
    id: "other", title: "As another user", about: "The same address with somebody else’s token",
    async run(page) {
      const id = await page.conversation();
      const other = page.users.find((user) => user !== page.user);
      const answer = await call(other, "GET", `/api/chat/conversations/${id}`);
      const name = other[0].toUpperCase() + other.slice(1);
      return answer.status === 404 ? good(`${name} is told 404 ${answer.problem.code}: what one may not see is not there.`) : bad(`${name} is told ${outcome(answer)}.`);
    },
  },
];
