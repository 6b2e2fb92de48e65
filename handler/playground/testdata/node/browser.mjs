// Tries the playground in Chromium as people would: browser.mjs URL CHROMIUM FOLDER. Screenshots go to the folder. It prints each step, and
// ends with an error at the first that fails, with a picture of each page then.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [, , url, executablePath, folder] = process.argv;
const origin = new URL(url).origin;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const began = Date.now();
const long = `Rome has ${"very ".repeat(200)}many churches.`; // its echo is stopped, however slow the machine
const step = (name) => console.log(`${((Date.now() - began) / 1000).toFixed(1)} s  ${name}`);

const CUT = "Failed to load resource: net::ERR_FAILED"; // as the test itself does

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const pages = [];
const faults = [];
const refused = []; // answers with a status from 400, which Chromium itself writes to the console

async function open({ hasClock = false } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: "light" });
  context.setDefaultTimeout(20000);
  const page = await context.newPage();
  pages.push(page);
  page.on("pageerror", (err) => faults.push(`thrown: ${err.stack}`));
  page.on("console", (m) => {
    if (m.text().startsWith("Failed to load resource: the server responded with a status of")) refused.push(`${m.text().match(/\d+/)[0]} ${m.location().url}`);
    else if (m.text() !== CUT) faults.push(`console ${m.type()}: ${m.text()}`);
  });
  page.on("request", (r) => { if (!r.url().startsWith(origin) && !r.url().startsWith("blob:")) faults.push(`a request to ${r.url()}`); });
  if (hasClock) await page.clock.install();
  await page.goto(url);
  return page;
}

const button = (page, name) => page.getByRole("button", { name, exact: true });
const message = (page) => page.getByLabel("Message", { exact: true });
const answers = (page) => page.locator(".message.assistant");
const streaming = (page) => page.locator(".message.streaming .body");
const last = (page, kind) => page.locator(`.message.${kind}`).last();
const items = (page) => page.locator("#conversations button");
const idle = (page) => page.locator("#send").waitFor();
const count = (locator, n) => locator.nth(n - 1).waitFor().then(async () => assert.equal(await locator.count(), n));

async function say(page, text) {
  await message(page).fill(text);
  await message(page).press("Enter");
}

async function stop(page) {
  await button(page, "Stop the answer").click();
  await idle(page);
  assert.equal(await last(page, "user").getAttribute("data-state"), "cancelled");
}

async function signIn(page, name) {
  await button(page, name).click();
  await message(page).waitFor();
}

async function accessible(page, where) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const bad = found.violations.filter((v) => v.impact === "serious" || v.impact === "critical" || v.tags.some((t) => t.startsWith("wcag")));
  assert.deepEqual(bad.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).join(" ")}`), [], where);
}

async function fits(page, where) {
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= room, `${where}: ${wide} px do not fit into ${room}`);
}

async function itAnswers(page) {
  await page.getByText("Who are you?").waitFor();
  await accessible(page, "sign-in");
  await signIn(page, "Alice");
  await page.getByText("No conversation here yet").waitFor();
  step("one click signs in");

  await say(page, "A table in Rome <img src=x onerror=alert(1)>");
  await answers(page).filter({ hasText: "A table in Rome <img src=x onerror=alert(1)>" }).waitFor();
  await idle(page);
  await items(page).filter({ hasText: /^A table in Rome.*expires in 30 d$/ }).waitFor();
  await page.locator("#service", { hasText: /Redis: connected, [\d.]+ ms.*1 of 10,000.*Quota used[\d.]+ (Ki)?B of 32\.0 MiB/ }).waitFor();
  step("the list has it, the quota counts it, and markup is text");

  await page.route("**/api/chat/send", (route) => route.continue({ headers: { ...route.request().headers(), accept: "application/json" } }));
  await say(page, "All in one piece");
  await answers(page).filter({ hasText: "All in one piece" }).waitFor();
  await idle(page);
  await page.unroute("**/api/chat/send");
  step("an answer that is JSON shows as well");
}

// hostile is a card of an agent that one should not trust.
const hostile = {
  type: "AdaptiveCard", version: "1.5",
  body: [
    { type: "TextBlock", text: "<img src=x onerror=alert(1)> [here](javascript:alert(2))", wrap: true },
    { type: "RichTextBlock", inlines: [{ type: "TextRun", text: "or here", selectAction: { type: "Action.OpenUrl", url: "javascript:alert(3)" } }] },
  ],
  actions: [{ type: "Action.OpenUrl", title: "Run", url: "javascript:alert(4)" }, { type: "Action.OpenUrl", title: "Go", url: "https://example.com/there" }],
};

async function cards(page) {
  await button(page, "A card").click();
  const card = page.locator(".ac-adaptiveCard");
  await card.waitFor();
  await card.getByLabel("How many nights?").fill("4");
  await idle(page);
  assert.equal(await card.evaluate((e) => getComputedStyle(e).paddingLeft), "14px", "the policy lets the library style its card");
  assert.equal(await card.getByLabel("How many nights?").inputValue(), "4", "what is entered stays");
  await card.getByRole("button", { name: "Send" }).click();
  await page.locator(".message.user.value").waitFor();
  assert.deepEqual(JSON.parse(await last(page, "user").locator(".body").textContent()), { nights: "4" });
  await idle(page);
  await button(page, "Suggestions").click();
  await button(page, "Yes").click();
  await answers(page).filter({ hasText: /^yes/ }).waitFor();
  await idle(page);
  step("a card is drawn and submitted, a suggestion is taken");

  const conversation = "**/api/chat/conversations/*";
  await page.route(conversation, async (route) => {
    const response = await route.fetch();
    const body = await response.json();
    body.messages.find((m) => m.cardJson).cardJson = hostile;
    await route.fulfill({ response, json: body });
  });
  await page.reload();
  await card.getByText("<img src=x onerror=alert(1)> [here](javascript:alert(2))").waitFor();
  assert.equal(await page.locator(".card [href]").count(), 0);
  const opened = [];
  page.context().on("page", (other) => opened.push(other));
  page.on("dialog", (dialog) => { faults.push(`a script ran: ${dialog.message()}`); dialog.dismiss(); });
  await card.getByText("or here").click();
  await card.getByText("Run").click();
  await page.context().route("https://**", (route) => route.abort());
  const [there] = await Promise.all([page.context().waitForEvent("page"), card.getByText("Go").click()]);
  assert.equal(opened.length, 1, "a script's address opens nothing");
  await there.close();
  await page.unroute(conversation);
  await page.reload();
  await card.getByLabel("How many nights?").waitFor();
  step("a card runs no script");
}

async function states(page) {
  await button(page, "No answer").click();
  await page.locator(".message.user[data-state=pending]", { hasText: "Waiting for the answer" }).waitFor();
  await stop(page);
  await button(page, "Half an answer").click();
  await page.locator(".message.user[data-state=failed]").waitFor();
  await page.locator(".message.assistant[data-state=partial]").waitFor();
  await idle(page);
  assert.match(await last(page, "assistant").textContent(), /^This answer .*Only this much arrived\.$/);
  await page.locator("#exchange .problem", { hasText: "agent_failed" }).waitFor(); // beside the request
  assert.match(await page.locator("#exchange").textContent(), /Authorization: Bearer … \(alice\)/);
  assert.doesNotMatch(await page.locator("body").innerText(), /eyJ/, "no token is shown");
  step("pending, failed, partial and cancelled are told apart");
}

async function streams(page) {
  await button(page, "A long answer").click();
  await streaming(page).filter({ hasText: "Rome has" }).waitFor();
  const early = await streaming(page).textContent();
  await answers(page).filter({ hasText: "churches, and each of them" }).waitFor();
  assert.ok(early.length < (await last(page, "assistant").locator(".body").textContent()).length, "it grows");
  await inBothSchemes(page, "wide");
  await idle(page);
  step("an answer streams");
}

async function inBothSchemes(page, name) {
  await page.screenshot({ path: `${folder}/${name}-light.png` });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: `${folder}/${name}-dark.png` });
  await page.emulateMedia({ colorScheme: "light" });
}

async function resumes(page) {
  await say(page, long);
  await streaming(page).waitFor();
  await page.emulateMedia({ reducedMotion: "reduce" });
  assert.equal(await streaming(page).evaluate((e) => getComputedStyle(e, "::after").animationName), "none", "reduced motion");
  await page.emulateMedia({ reducedMotion: null });
  await stop(page);
  step("an answer is stopped");

  const begins = streaming(page).filter({ hasText: /^Rome has very very very very/ });
  await say(page, long);
  await begins.waitFor();
  const read = "**/api/chat/conversations/*";
  await page.route(read, async (route) => { await begins.waitFor(); await route.continue(); }, { times: 1 }); // what is asked first comes last
  const first = page.waitForRequest(read);
  await page.reload();
  await begins.waitFor();
  await (await (await first).response()).finished();
  await begins.waitFor();
  step("a page that is loaded anew goes on with the turn");
  await button(page, "New conversation").click();
  await page.getByText("Say something").waitFor();
  await items(page).first().click();
  await begins.waitFor();
  step("and so does who comes back to the conversation");

  const elsewhere = await open({ hasClock: true });
  await signIn(elsewhere, "Alice");
  await items(elsewhere).first().click();
  await streaming(elsewhere).filter({ hasText: /^Rome has very/ }).waitFor();
  await stop(elsewhere);
  await idle(page);
  await page.locator(".message.user[data-state=cancelled]").last().waitFor();
  await say(page, long);
  await streaming(page).waitFor();
  await elsewhere.route("**/stream", (route) => route.abort(), { times: 1 });
  await elsewhere.clock.runFor(4100);
  await elsewhere.locator("#exchange", { hasText: "No answer." }).waitFor();
  await elsewhere.clock.runFor(4100);
  await streaming(elsewhere).filter({ hasText: /^Rome has very/ }).waitFor();
  await stop(page);
  await idle(elsewhere);
  await close(elsewhere);
  step("another page of the same user follows, and is cut, and goes on");
}

const experiments = {
  twice: /^Both were answered, 1 of them from memory, and the message is stored once\.$/,
  ten: /^10 × 200; 10 stored, each with its answer behind it\.$/,
  "hang-up": /^Gone after event \S+, back 1\.5 s later: no word is missing, none came twice\.$/,
  other: /^Alice is told 404 not_found: what one may not see is not there\.$/,
};

async function differs(page) {
  for (const [id, says] of Object.entries(experiments)) {
    await page.locator(`[data-experiment=${id}]`).click();
    if (id === "hang-up") await page.getByText("You hung up. The turn goes on without you.").waitFor();
    await page.locator(`#result[data-of=${id}]`).waitFor();
    assert.match(await page.locator("#result").textContent(), says);
  }
  assert.equal(await page.locator(".message.user", { hasText: "Send me once" }).count(), 1);
  assert.equal(await page.locator(".message.user", { hasText: "of ten" }).count(), 10);
  const order = await page.locator(".message .body", { hasText: "of ten" }).allTextContents();
  for (let i = 0; i < order.length; i += 2) assert.equal(order[i + 1], order[i], "each answer is behind its message");
  await page.locator("#exchange .problem", { hasText: "not_found" }).waitFor();
  step("the experiments say what they promise");
}

async function looks(page) {
  await accessible(page, "a conversation, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "a conversation, dark");
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  await page.getByRole("button", { name: /^Colours/ }).click();
  await button(page, "Colours: light").waitFor();
  const light = await ground();
  await page.getByRole("button", { name: /^Colours/ }).click();
  await button(page, "Colours: dark").waitFor();
  assert.notEqual(light, dark);
  assert.equal(await ground(), dark);
  await page.getByRole("button", { name: /^Colours/ }).click();
  await page.emulateMedia({ colorScheme: "light" });
  assert.equal(await ground(), light);
  step("both schemes are accessible");

  for (const width of [360, 540, 719, 720, 1024, 1179, 1180, 1600]) {
    await page.setViewportSize({ width, height: 800 });
    for (const tab of await page.locator(".tabs button:visible").all()) {
      await tab.click();
      await fits(page, `${width} px, ${await tab.textContent()}`);
      if (width > 360) continue;
      const toEnd = await page.locator("#scroll").evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight);
      assert.ok(toEnd < 2, "what is said last shows");
      await accessible(page, `narrow, ${await tab.textContent()}`);
      await inBothSchemes(page, `narrow-${await tab.getAttribute("data-view")}`);
    }
    await fits(page, `${width} px`);
    if (width < 1180) await page.locator(".tabs [data-view=chat]").click();
  }
  await page.setViewportSize({ width: 1440, height: 900 });
  step("it fits from 360 to 1600 px");
}

async function lives(page) {
  await button(page, "Rename").click();
  await page.getByLabel("Title").fill("Dinner");
  await page.getByLabel("Title").press("Enter");
  await page.locator("#title", { hasText: "Dinner" }).waitFor();
  await items(page).filter({ hasText: "Dinner" }).waitFor();
  await button(page, "Complete").click();
  await items(page).filter({ hasText: "completed" }).waitFor();
  await say(page, "Still there?");
  await page.getByText("Not sent: The conversation is not active.").waitFor();
  await button(page, "Archive").click();
  await items(page).filter({ hasText: "archived" }).waitFor();
  await page.getByLabel("Show").selectOption("active");
  await page.getByText("No conversation here yet").waitFor();
  await page.getByLabel("Show").selectOption("");
  await button(page, "Make active").click();
  await page.locator("#facts .chip[data-status=active]").waitFor();
  step("it is renamed, completed, archived and made active");

  const [download] = await Promise.all([page.waitForEvent("download"), button(page, "Export everything").click()]);
  assert.equal(download.suggestedFilename(), "conversations-of-alice.ndjson");
  const lines = (await readFile(await download.path(), "utf8")).trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual([lines[0].type, lines[0].title, lines.at(-1).type, lines.at(-1).conversations], ["conversation", "Dinner", "end", 1]);
  step("an export is a file");

  await button(page, "Delete").click();
  await page.getByText("“Dinner” is deleted.").waitFor();
  assert.equal(await items(page).count(), 0);
  await page.getByRole("button", { name: /^Undo \(\d\)$/ }).click();
  await page.locator("#title", { hasText: "Dinner" }).waitFor();
  await items(page).waitFor();
  step("a deletion is undone");
}

async function withoutMouse(page) {
  const press = (key) => page.keyboard.press(key);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
  const isWriting = () => page.waitForFunction(() => document.activeElement.id === "text");
  const tabTo = async (text) => {
    for (let i = 0; i < 60; i++) {
      if ((await focused()).startsWith(text)) return;
      await press("Tab");
    }
    assert.fail(`Tab does not reach ${text}`);
  };
  await page.locator("#choices button").first().waitFor();
  await tabTo("Skip");
  await tabTo("BBob");
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", "the focus shows");
  await press("Enter");
  await isWriting();
  for (const [i, text] of ["First", "Second"].entries()) {
    if (i > 0) {
      await tabTo("New conversation");
      await press("Enter");
      await isWriting();
    }
    await page.keyboard.type(text);
    await press("Shift+Enter");
    await page.keyboard.type("line");
    await press("Enter");
    await answers(page).locator(".body", { hasText: `${text}\nline` }).waitFor();
    await idle(page);
    await count(items(page), i + 1);
  }
  await page.clock.fastForward(65000);
  await items(page).first().filter({ hasText: /^Second line1 min ago[^]*expires in 30 d$/ }).waitFor();
  await page.clock.fastForward("48:00:00");
  await items(page).first().filter({ hasText: /^Second line2 d ago[^]*expires in 28 d$/ }).waitFor();
  step("times go on");

  await items(page).first().focus();
  await press("ArrowDown");
  assert.match(await focused(), /^First/);
  await press("Enter");
  await page.locator("#title", { hasText: "First" }).waitFor();
  await message(page).focus();
  await page.keyboard.insertText(long);
  await press("Enter");
  await streaming(page).waitFor();
  await press("Escape");
  await page.locator(".message.user[data-state=cancelled]").waitFor();
  await idle(page);
  step("all of it works without a mouse");

  await tabTo("Delete");
  const deleted = page.waitForRequest((r) => r.method() === "DELETE");
  await press("Enter");
  await page.getByText("“First line” is deleted.").waitFor();
  assert.match(await focused(), /^Undo/);
  await page.clock.runFor(9000);
  assert.equal((await (await deleted).response()).status(), 204);
  await page.waitForFunction(() => document.querySelectorAll("#conversations button").length === 1);
  step("when the time to undo is over it is deleted");

  await items(page).first().click();
  await page.locator("#title", { hasText: "Second" }).waitFor();
  await button(page, "Delete").click();
  await page.getByText("“Second line” is deleted.").waitFor();
  await page.reload();
  await page.getByText("No conversation here yet").waitFor();
  step("and when the page is left");
}

// called calls the API as a program does, with a token that the playground gives.
async function called(user) {
  const { token } = await (await fetch(`${url}token?user=${user}`, { method: "POST" })).json();
  return async (path, body = {}) => {
    const answer = await fetch(origin + path, { method: "POST", headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" }, body: JSON.stringify(body) });
    assert.ok(answer.ok, await answer.clone().text());
    return answer.json();
  };
}

async function hasALot(page) {
  const api = await called("carol");
  let conversationId;
  for (let i = 0; i < 31; i++) ({ conversationId } = await api("/api/chat/start", { title: `Number ${i}` }));
  for (let i = 0; i < 51; i++) await api("/api/chat/send", { conversationId, text: `${i}` });
  await signIn(page, "Carol");
  await count(items(page), 30);
  await button(page, "Older ones").click();
  await count(items(page), 31);
  const listed = page.waitForResponse((r) => r.url().endsWith("/list-conversations"));
  await page.clock.runFor(4100);
  await (await listed).finished();
  await count(items(page), 31);
  await items(page).first().click();
  await count(page.locator(".message"), 100);
  await button(page, "Earlier messages").scrollIntoViewIfNeeded();
  const first = page.locator(`[data-id="${await page.locator(".message").first().getAttribute("data-id")}"]`);
  const { y } = await first.boundingBox();
  await button(page, "Earlier messages").click();
  await count(page.locator(".message"), 102);
  assert.deepEqual((await page.locator(".message .body").allTextContents()).slice(0, 4), ["0", "0", "1", "1"]);
  await button(page, "Earlier messages").waitFor({ state: "hidden" });
  assert.ok(Math.abs((await first.boundingBox()).y - y) < 1, "what is read stays where it is");
  await say(page, "51");
  await count(page.locator(".message"), 104);
  await idle(page);
  await count(page.locator(".message"), 104);
  step("what is long shows in pages");
}

async function redisStops(page) {
  const before = await page.locator(".message").count();
  await button(page, "Stop Redis").click();
  await page.getByRole("alert").filter({ hasText: "Redis cannot be reached" }).waitFor();
  await page.locator("#result", { hasText: "Redis is stopped" }).waitFor();
  await say(page, "Can you hear me?");
  await page.getByText("Not sent: Conversations cannot be reached at the moment.").waitFor();
  await accessible(page, "Redis is down");
  await page.screenshot({ path: `${folder}/wide-light-down.png` });
  await button(page, "Start Redis again").click();
  await page.getByText("Redis is back, and so is every conversation.").waitFor();
  await page.locator("#result", { hasText: "with all that was acknowledged" }).waitFor();
  await page.locator(".message.user[data-state=unsent]", { hasText: "Can you hear me?" }).getByRole("button", { name: "Send again" }).click();
  await answers(page).filter({ hasText: "Can you hear me?" }).waitFor();
  assert.equal(await page.locator(".message.user", { hasText: "Can you hear me?" }).count(), 1);
  await count(page.locator(".message"), before + 2); // what was acknowledged is there
  step("Redis stops and starts, and the page says so");
}

async function alice() {
  const page = await open();
  for (const does of [itAnswers, states, cards, streams, looks, resumes, lives]) await does(page);
  return page;
}

async function close(page) {
  await page.context().close();
  pages.splice(pages.indexOf(page), 1);
}

async function bob() {
  const page = await open({ hasClock: true });
  await withoutMouse(page);
  await differs(page);
  await close(page);
}

async function carol() {
  const page = await open({ hasClock: true });
  await hasALot(page);
  await close(page);
}

try {
  const [page] = await Promise.all([alice(), bob(), carol()]);
  await redisStops(page);
} catch (err) {
  for (const [i, page] of pages.entries()) await page.screenshot({ path: `${folder}/failed-${i}.png` });
  throw err;
}
assert.deepEqual(faults, []);
const expected = [/^404 .*\/conversations\//, /^409 .*\/send$/, /^503 .*\/(health|send|list-conversations|usage|conversations\/[^/]+)$/];
assert.deepEqual(refused.filter((r) => !expected.some((e) => e.test(r.replace(/\?.*/, "")))), []);
await browser.close();
step("there was no error of its own, and no request to elsewhere");
