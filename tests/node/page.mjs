// A person at the page, in headless Chromium: one command a line on stdin, [verb, ...arguments] in JSON;
// one answer a line on stdout, {"value"} or {"error"}. Waits for conditions only. Ends with its stdin.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const WAIT_MS = 20_000;
const [executablePath] = process.argv.slice(2);
const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

const browser = await chromium.launch({ executablePath, args });
const complaints = [];
let page, connection, question;

async function open(url) { // as somebody who was never here before
  await page?.context().close();
  complaints.length = 0;
  page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  connection = page.getByRole("switch", { name: "Cut the connection" });
  question = page.getByRole("textbox", { name: "Your question" });
  await page.goto(url);
}

const shown = (id) => page.locator(`#${id}`).textContent();

const verbs = {
  open,
  ask: async (text) => { await question.fill(text); await question.press("Enter"); },
  cut: () => connection.check(),
  reconnect: () => connection.uncheck(),
  stop: () => page.getByRole("button", { name: "Stop" }).click(),
  reload: async () => void (await page.reload()),
  // Until the element of this id holds exactly this text, or, with `part`, this among other text.
  see: async (id, text, part = false) => {
    const holds = ([id, text, part]) => {
      const now = document.getElementById(id).textContent;
      return part ? now.includes(text) : now === text;
    };
    await page.waitForFunction(holds, [id, text, part]).catch(async () => {
      throw new Error(`#${id} should show ${JSON.stringify(text)}, and shows ${JSON.stringify(await shown(id))}`);
    });
  },
  read: shown,
  question: () => question.inputValue(),
  address: async () => page.url(),
  complaints: async () => complaints,
};

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...given] = JSON.parse(line);
  const answer = await verbs[verb](...given).then((value) => ({ value: value ?? null }), (error) => ({ error: String(error) }));
  console.log(JSON.stringify(answer));
}
await browser.close();
