// Tries the playground in Chromium as people would: browser.mjs URL CHROMIUM FOLDER. Screenshots go to the folder. It prints each step, and
// ends with an error at the first that fails.
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

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const faults = [];
const refused = []; // answers with a status from 400, which Chromium itself writes to the console

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: "light", ...options });
  context.setDefaultTimeout(20000);
  const page = await context.newPage();
  page.on("pageerror", (err) => faults.push(`thrown: ${err.stack}`));
  page.on("console", (m) => {
    if (m.text().startsWith("Failed to load resource: the server responded with a status of")) refused.push(`${m.text().match(/\d+/)[0]} ${m.location().url}`);
    else faults.push(`console ${m.type()}: ${m.text()}`);
  });
  page.on("request", (r) => { if (!r.url().startsWith(origin) && !r.url().startsWith("blob:")) faults.push(`a request to ${r.url()}`); });
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

// ---- Alice, with a mouse

const page = await open();
await page.getByText("Who are you?").waitFor();
await accessible(page, "sign-in");
await signIn(page, "Alice");
await page.getByText("No conversation here yet").waitFor();
step("one click signs in");

await say(page, "A table in Rome <img src=x onerror=alert(1)>");
await answers(page).filter({ hasText: "A table in Rome <img src=x onerror=alert(1)>" }).waitFor();
await idle(page);
assert.match(await items(page).textContent(), /^A table in Rome.*expires in 30 d$/);
step("the list has it, and markup is text");

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

await button(page, "A long answer").click();
await streaming(page).filter({ hasText: "Rome has" }).waitFor();
const early = await streaming(page).textContent();
await answers(page).filter({ hasText: "churches, and each of them" }).waitFor();
assert.ok(early.length < (await last(page, "assistant").locator(".body").textContent()).length, "it grows");
await page.screenshot({ path: `${folder}/wide-light.png` });
await idle(page);
await say(page, long);
await streaming(page).waitFor();
await page.emulateMedia({ reducedMotion: "reduce" });
assert.equal(await streaming(page).evaluate((e) => getComputedStyle(e, "::after").animationName), "none", "reduced motion");
await page.emulateMedia({ reducedMotion: null });
await stop(page);
step("an answer streams, and is stopped");

await say(page, long);
await streaming(page).filter({ hasText: "Rome has very" }).waitFor();
await page.reload();
await items(page).first().click();
await streaming(page).filter({ hasText: /^Rome has very very very very/ }).waitFor();
await stop(page);
step("a page that is loaded anew goes on with the turn");

await page.route("**/api/chat/send", (route) => route.continue({ headers: { ...route.request().headers(), accept: "application/json" } }));
await say(page, "All in one piece");
await answers(page).filter({ hasText: "All in one piece" }).waitFor();
await idle(page);
await page.unroute("**/api/chat/send");
step("an answer that is JSON shows as well");

const experiments = {
  twice: "Both were answered, 1 of them from memory, and the message is stored once.",
  ten: "10 × 200; 10 stored, each with its answer behind it.",
  "hang-up": /^Gone after event \S+, back 1\.5 s later: no word is missing, none came twice\.$/,
  other: "Bob is told 404 not_found: what one may not see is not there.",
};
for (const [id, says] of Object.entries(experiments)) {
  await page.locator(`[data-experiment=${id}]`).click();
  if (id === "hang-up") await page.getByText("You hung up. The turn goes on without you.").waitFor();
  await page.locator(`#result[data-of=${id}]`).waitFor();
  const result = await page.locator("#result").textContent();
  if (says instanceof RegExp) assert.match(result, says);
  else assert.equal(result, says);
}
assert.equal(await page.locator(".message.user", { hasText: "Send me once" }).count(), 1);
assert.equal(await page.locator(".message.user", { hasText: "of ten" }).count(), 10);
const order = await page.locator(".message .body", { hasText: "of ten" }).allTextContents();
for (let i = 0; i < order.length; i += 2) assert.equal(order[i + 1], order[i], "each answer is behind its message");
await page.locator("#exchange .problem", { hasText: "not_found" }).waitFor();
step("the experiments say what they promise");

await accessible(page, "a conversation, light");
await page.emulateMedia({ colorScheme: "dark" });
await accessible(page, "a conversation, dark");
await page.screenshot({ path: `${folder}/wide-dark.png` });
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
    if (width !== 360) continue;
    await accessible(page, `narrow, ${await tab.textContent()}`);
    const view = await tab.getAttribute("data-view");
    await page.screenshot({ path: `${folder}/narrow-light-${view}.png` });
    if (view !== "chat") continue;
    await page.emulateMedia({ colorScheme: "dark" });
    await page.screenshot({ path: `${folder}/narrow-dark-${view}.png` });
    await page.emulateMedia({ colorScheme: "light" });
  }
  await fits(page, `${width} px`);
  if (width < 1180) await page.locator(".tabs [data-view=chat]").click();
}
await page.setViewportSize({ width: 1440, height: 900 });
step("it fits from 360 to 1600 px");

// ---- What can be done with a conversation

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

// ---- Bob, with a keyboard

const bob = await open();
await bob.clock.install();
await bob.reload();
const press = async (...keys) => { for (const key of keys) await bob.keyboard.press(key); };
const focused = () => bob.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
const tabTo = async (text) => {
  for (let i = 0; i < 60; i++) {
    if ((await focused()).startsWith(text)) return;
    await press("Tab");
  }
  assert.fail(`Tab does not reach ${text}`);
};
await bob.locator("#choices button").first().waitFor();
await tabTo("Skip");
await tabTo("BBob");
assert.notEqual(await bob.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", "the focus shows");
await press("Enter");
await bob.waitForFunction(() => document.activeElement.id === "text");
for (const [i, text] of ["First", "Second"].entries()) {
  await bob.keyboard.type(text);
  await press("Shift+Enter");
  await bob.keyboard.type("line");
  await press("Enter");
  await bob.locator(".message.assistant .body", { hasText: `${text}\nline` }).waitFor();
  await idle(bob);
  await bob.waitForFunction((n) => document.querySelectorAll("#conversations button").length === n, i + 1);
  if (i === 0) {
    await bob.locator("#new").focus();
    await press("Enter");
    await bob.waitForFunction(() => document.activeElement.id === "text");
  }
}
await bob.clock.fastForward(65000);
await items(bob).first().filter({ hasText: /^Second line1 min/ }).waitFor();
step("times go on");

await items(bob).first().focus();
await press("ArrowDown");
assert.match(await focused(), /^First/);
await press("Enter");
await bob.locator("#title", { hasText: "First" }).waitFor();
await message(bob).focus();
await bob.keyboard.insertText(long);
await press("Enter");
await streaming(bob).waitFor();
await press("Escape");
await bob.locator(".message.user[data-state=cancelled]").waitFor();
await idle(bob);
step("all of it works without a mouse");

await tabTo("Delete");
const deleted = bob.waitForRequest((r) => r.method() === "DELETE");
await press("Enter");
await bob.getByText("“First line” is deleted.").waitFor();
assert.match(await focused(), /^Undo/);
await bob.clock.runFor(9000);
assert.equal((await (await deleted).response()).status(), 204);
await bob.waitForFunction(() => document.querySelectorAll("#conversations button").length === 1);
step("when the time to undo is over it is deleted");

await items(bob).first().click();
await bob.locator("#title", { hasText: "Second" }).waitFor();
await button(bob, "Delete").click();
await bob.getByText("“Second line” is deleted.").waitFor();
await bob.reload();
await bob.getByText("No conversation here yet").waitFor();
step("and when the page is left");

await signIn(bob, "Carol");
await bob.getByText("No conversation here yet").waitFor();
await bob.context().close();

// ---- Redis stops

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
assert.equal(await page.locator(".message.user", { hasText: "of ten" }).count(), 10, "what was acknowledged is there");
step("Redis stops and starts, and the page says so");

assert.deepEqual(faults, []);
const expected = [/^404 .*\/conversations\//, /^409 .*\/send$/, /^503 .*\/(health|send|list-conversations|usage|conversations\/[^/]+)$/];
assert.deepEqual(refused.filter((r) => !expected.some((e) => e.test(r.replace(/\?.*/, "")))), []);
await browser.close();
step("there was no error of its own, and no request to elsewhere");
