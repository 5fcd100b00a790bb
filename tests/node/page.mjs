// A user of the page in headless Chromium. A command is one line of stdin, [verb, ...arguments] in JSON; the
// answer is one line of stdout, {"value"} or {"error"}. It only waits for conditions, never for a time. It
// ends when stdin ends.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const WAIT_MS = 30_000;
const [executablePath] = process.argv.slice(2);
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

const browser = await chromium.launch({ executablePath, args });
const complaints = [];
let context, page;

function show(tab) {
  page = tab;
  page.setDefaultTimeout(WAIT_MS);
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(`${message.text()} ${message.location().url}`));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
}

// as a new user
async function open(url, width = 1200, scheme = "light", height = 800, deviceScaleFactor = 1) {
  await context?.close();
  complaints.length = 0;
  context = await browser.newContext({ viewport: { width, height }, deviceScaleFactor, colorScheme: scheme, permissions: ["clipboard-read", "clipboard-write"] });
  show(await context.newPage());
  await page.goto(url);
}

function passing(error) { // while the page reloads, such an error is temporary
  if (!/Execution context was destroyed|navigation/.test(String(error))) throw error;
  return false;
}

async function until(look, what) {
  for (const end = Date.now() + WAIT_MS; !(await look().catch(passing)); await page.waitForTimeout(20)) {
    if (Date.now() > end) throw new Error(`never became true: ${what}`);
  }
}

// The part with this class in the last answer: in the last turn, the last stream that continues it.
const part = (name) => page.locator(`.turn:last-child .${name}`).last();

const verbs = {
  open,
  ask: async (text) => { await page.getByRole("textbox", { name: "Your question" }).fill(text); await page.keyboard.press("Enter"); },
  press: (name) => page.getByRole("button", { name, exact: true }).last().click(),
  // The element in the group with this name (a group is a question, named by its text); if several answers
  // have one, the last.
  decide: (group, name) => page.getByRole("group", { name: group, exact: true }).last().getByRole("button", { name, exact: true }).click(),
  fill: (label, text) => page.getByLabel(label, { exact: true }).last().fill(text),
  choose: (label, option) => page.getByLabel(label, { exact: true }).last().selectOption({ label: option }),
  tick: (label) => page.getByLabel(label, { exact: true }).last().check(),
  type: async (label, text) => { await page.getByLabel(label).fill(text); await page.keyboard.press("Enter"); },
  keys: async (...names) => { for (const name of names) await page.keyboard.press(name); },
  focused: () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent.trim()),
  // Turns the browser's network off: new requests fail, and open connections are dropped, until the page
  // shows that it is cut off. A connection that was being opened may still open, and is then dropped too.
  offline: async () => {
    await context.setOffline(true);
    let dropped = false;
    await until(() => page.evaluate((dropped) => {
      const cut = document.querySelector("#losing .cut");
      const isOff = cut.getAttribute("aria-disabled") === "true";
      if (!isOff && !dropped) cut.click();
      const away = document.querySelector(".turn:last-child .readers:last-child .state").textContent === "Connection cut, coming back";
      return { away: away && isOff, dropped: !isOff };
    }, dropped).then((now) => { dropped = now.dropped; return now.away; }), "the page is cut off");
  },
  online: () => context.setOffline(false),
  // The faults that axe-core finds on the present page: each rule with the elements that break it.
  axe: async () => {
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    return violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html.slice(0, 200))]);
  },
  clock: () => page.clock.install(), // the clock of the page: `later` moves it, and real time does too
  later: (ms) => page.clock.fastForward(ms),
  hover: (selector) => page.locator(selector).last().hover(),
  click: (selector) => page.locator(selector).last().click(),
  network: (up) => context.setOffline(!up), // for all pages
  reload: async () => void (await page.reload()),
  back: async () => void (await page.goBack()),
  tab: async () => { const address = page.url(); show(await context.newPage()); await page.goto(address); },
  // Waits until the part with this class in the last answer has exactly this text, without outer space, or,
  // with `among`, contains it.
  see: async (name, text, among = false) => {
    const holds = ([name, text, among]) => {
      const now = [...document.querySelectorAll(`.turn:last-child .${name}`)].at(-1)?.textContent.trim();
      return among ? now?.includes(text) : now === text;
    };
    await page.waitForFunction(holds, [name, text, among]).catch(async () => {
      const now = await part(name).textContent({ timeout: 1000 }).catch(() => "nothing");
      throw new Error(`.${name} should show ${JSON.stringify(text)}, and shows ${JSON.stringify(now)}`);
    });
  },
  read: async (name) => (await part(name).textContent()).trim(),
  shown: (name) => part(name).isVisible(),
  count: (selector) => page.locator(selector).count(),
  // waitForFunction needs strings that the page's policy forbids
  until: (source) => until(() => page.evaluate(source), source),
  run: (source) => page.evaluate(source),
  picture: async (path) => { // of a page that does not move: scrolling would tear the picture
    await page.evaluate(async () => {
      globalThis.setTimeout = () => 0; // stops further drawing
      for (const by of [0, 0, -1, 0, 1, 0, 0]) { // so that sticky elements return to their places
        scrollBy(0, by);
        await new Promise((over) => { requestAnimationFrame(over); });
      }
    });
    await page.screenshot({ path });
  },
  address: async () => page.url(),
  complaints: async () => complaints,
};

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...given] = JSON.parse(line);
  const answer = await verbs[verb](...given).then((value) => ({ value: value ?? null }), (error) => ({ error: String(error) }));
  console.log(JSON.stringify(answer));
}
await browser.close();
