// Makes docs/playground.png: docs/playground.md says how.
import { chromium } from "playwright-core";

const [, , url, file] = process.argv;
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1440, height: 860 }, colorScheme: "light" });
await page.goto(url);
await page.getByRole("button", { name: "Carol", exact: true }).click();

const idle = () => page.locator("#send").waitFor();
const say = async (text) => {
  await idle();
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.keyboard.press("Enter");
  await page.locator(".message.assistant .body", { hasText: text }).last().waitFor();
  await idle();
};
for (const text of ["Names for a cat with one ear", "What to pack for a week of rain"]) {
  await say(text);
  if (text.startsWith("Names")) {
    await page.getByRole("button", { name: "Complete" }).click();
    await page.locator("#conversations", { hasText: "completed" }).waitFor();
  }
  await page.getByRole("button", { name: "New conversation" }).click();
}
await say("A room in Rome, this Friday");
await page.getByRole("button", { name: "A card", exact: true }).click();
await page.locator(".ac-adaptiveCard").waitFor();
await idle();
await page.locator("[data-experiment=twice]").click();
await page.locator("#result[data-of=twice]").waitFor();
await page.getByRole("button", { name: "A long answer", exact: true }).click();
await page.locator(".streaming", { hasText: "churches" }).waitFor();
await page.mouse.move(0, 0);
await page.screenshot({ path: file });
await browser.close();
