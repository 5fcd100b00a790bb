// The page: a conversation, whose last stream the address names. So a reload, the back button and a second tab all
// show it. What was asked, and which stream was before, is in each stream's metadata; nothing is kept in the browser
// but, in this tab, an API key.
import { Gateway, Refused } from "./client.js";
import { Turn } from "./turn.js";
import { MODEL, told } from "./words.js";

const MOST_TURNS = 20; // of a conversation, to be shown again and to be told to the model
const MOST_ANSWERS = 40; // streams of one turn, to be shown again
const QUESTION_BYTES = 3000; // of metadata's 4096
const MODEL_LOOKS = 120; // one a second while the model loads
const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const functionKey = new URLSearchParams(location.search).get("code"); // where Azure Functions asks for one

const page = {
  model: "", turns: [], asking: false,
  own: ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname), // where a worker may be killed
  get options() { return { key: sessionStorage.getItem("key") ?? "", patience: 60, headers: functionKey ? { "x-functions-key": functionKey } : {} }; },
  get gateway() { return new Gateway(".", { ...this.options, patience: 15 }); },
  get last() { return this.turns.at(-1); },
  refused: (text) => { $("refused").textContent = text; $("refused").hidden = !text; },
  again(turn) { ask(turn.question); },
  askForKey: () => askForKey(),

  changed(turn) {
    const { error } = turn.last.reader;
    const named = location.hash.slice(1);
    if (turn === this.last && turn.id && named !== turn.id) { // another stream of the same turn is no step back
      history[turn.ids.includes(named) ? "replaceState" : "pushState"](null, "", `#${turn.id}`);
    }
    if (error instanceof Refused && error.status === 401 && turn === this.last) askForKey(turn.id ? "" : turn.question);
    buttons();
  },

  async call(path, init = {}) { // one try; nothing where there is no such path
    const { key, headers } = this.options;
    const asked = { "content-type": "application/json", ...headers, ...(key && { authorization: `Bearer ${key}` }) };
    const answer = await fetch(path, { cache: "no-store", ...init, headers: asked }).catch(() => null);
    if (answer?.status === 401) askForKey();
    return answer?.ok ? answer.json() : null;
  },
};

function buttons() { // one answer at a time, but whoever is cut off from it may ask anew
  $("send").disabled = page.asking || Boolean(page.last?.busy);
  $("welcome").hidden = page.turns.length > 0;
  $("new").hidden = !page.turns.length;
}

function show(turns) {
  for (const turn of page.turns.filter((turn) => !turns.includes(turn))) turn.close();
  for (const turn of page.turns.filter((turn) => !turns.includes(turn))) turn.node.remove();
  page.turns = turns;
  const list = $("turns");
  turns.forEach(({ node }, at) => { if (list.children[at] !== node) list.insertBefore(node, list.children[at] ?? null); }); // none moves, so the focus stays
  page.refused("");
  buttons();
}

const cutTo = (text, bytes) => new TextDecoder("utf-8").decode(new TextEncoder().encode(text).slice(0, bytes)).replace(/\ufffd+$/, "…");

/** Start a stream: the question alone, or behind what was said before. */
function ask(question) {
  const said = page.turns.filter((turn) => turn.answered).slice(-MOST_TURNS);
  const messages = said.flatMap((turn) => [{ role: "user", content: turn.question }, { role: "assistant", content: turn.text }]);
  const body = messages.length ? { messages: [...messages, { role: "user", content: question }] } : { user: question };
  if ($("chain").value) body.chain = $("chain").value;
  const metadata = { question: cutTo(question, QUESTION_BYTES) };
  const previous = page.turns.findLast((turn) => turn.id)?.id;
  if (previous) metadata.previous = previous;
  const turn = new Turn(page, question, (gateway, signal) => gateway.stream({ ...body, metadata, signal }));
  show([...page.turns, turn]);
  turn.node.scrollIntoView({ block: "start" });
  return turn.run();
}

/** The conversation that ends with the stream of this id, from the gateway alone. */
async function load() {
  const id = location.hash.slice(1);
  if (id && page.last?.ids.includes(id)) return;
  const turns = [];
  const stands = () => !turns.length || page.last === turns.at(-1);
  for (let next = id; next && turns.length < MOST_TURNS && stands(); ) {
    const shown = next;
    const turn = new Turn(page, "", (gateway, signal) => gateway.follow(shown, "", { signal }));
    turns.unshift(turn);
    if (turns.length === 1) { show(turns); turn.run(); }
    const status = await look(shown);
    turn.question = status?.metadata?.question ?? "";
    await complete(turn, status, stands);
    if (turns.length === 1) turn.run();
    next = status?.metadata?.previous ?? "";
  }
  if (!stands()) return;
  show(turns);
  for (const turn of turns.slice(0, -1)) turn.run();
}

const look = (id) => page.gateway.status(id).catch(() => null);

/** The other streams of a turn: those that its stream goes on from, and those that go on with an answer. */
async function complete(turn, status, stands) {
  for (let one = status, before; (before = one?.retries ?? one?.resumes) && turn.answers.length < MOST_ANSWERS && stands(); ) {
    turn.before(before);
    one = await look(before);
  }
  for (let next = status?.resumed_by; next && turn.answers.length < MOST_ANSWERS && stands(); ) {
    turn.after(next);
    next = (await look(next))?.resumed_by;
  }
}

function askForKey(question = "") { // and go on with it; a question that was not taken is not to be typed again
  const door = $("door");
  $("box").value ||= question;
  if (door.open) return;
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem("key", $("key").value.trim());
    sessionStorage.setItem("question", $("box").value);
    location.reload();
  };
  $("no-key").onclick = () => door.close();
  door.showModal();
}

async function watchModel() {
  for (let looks = 0; looks < MODEL_LOOKS; looks++) {
    page.model = (await page.call("health"))?.model ?? "";
    $("model").textContent = MODEL[page.model] ?? "Gateway out of reach";
    $("model").className = page.model === "loading" ? "busy" : ["ready", "configured"].includes(page.model) ? "" : "warn";
    $("model").hidden = false;
    page.last?.changed();
    if (page.model && page.model !== "loading") return;
    await pause(1000);
  }
}

async function listChains() {
  const answer = await page.call("chains");
  const chains = (Array.isArray(answer) ? answer : answer?.chains ?? []).map((chain) => chain.name ?? chain);
  $("chain").replaceChildren(...chains.map((name) => new Option(name, name, name === "chat", name === "chat")));
  $("chains").hidden = chains.length < 2;
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  const question = $("box").value.trim();
  if (!question || $("send").disabled) return;
  $("box").value = "";
  ask(question);
};
$("box").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
};
$("examples").onclick = (event) => { if (event.target.nodeName === "BUTTON") ask(event.target.textContent); };
$("new").onclick = () => { show([]); history.pushState(null, "", location.pathname + location.search); $("box").focus(); };
addEventListener("popstate", () => (location.hash ? load() : show([])));
addEventListener("hashchange", load);

$("box").value ||= sessionStorage.getItem("question") ?? "";
sessionStorage.removeItem("question");
watchModel();
listChains();
load();
