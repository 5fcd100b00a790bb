// The page: a conversation. The page's address names its last stream, so a reload, the back button and a
// second tab all show the conversation. The metadata of each stream has the question, the previous stream and
// the conversation. The browser stores an API key, for this tab only, and what kept.js describes.
import { About } from "./about.js";
import { Gateway, Refused } from "./client.js";
import { Composer } from "./composer.js";
import { $ } from "./dom.js";
import { Losing } from "./losing.js";
import { Rail } from "./rail.js";
import { Follower } from "./scroll.js";
import { Turn } from "./turn.js";

const MOST_TURNS = 20; // turns of a conversation that are loaded and sent to the model
const MOST_ANSWERS = 40; // streams of one turn that are loaded
const QUESTION_BYTES = 3000; // bytes of a question in the metadata, whose limit is 4096
const TITLE_BYTES = 200;
const functionKey = new URLSearchParams(location.search).get("code"); // Azure Functions may require this key

const page = {
  turns: [], conversation: "",
  // only a local gateway lets a person kill a worker
  own: ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname),
  get options() { return { key: sessionStorage.getItem("key") ?? "", patience: 60, headers: functionKey ? { "x-functions-key": functionKey } : {} }; },
  get gateway() { return new Gateway(".", { ...this.options, patience: 15 }); },
  get last() { return this.turns.at(-1); },
  get busy() { return Boolean(this.last?.busy); },
  get live() { return Boolean(this.last?.live); },
  get model() { return about.model; },
  refused: (text) => { $("refused").textContent = text; $("refused").hidden = !text; },
  ask: (question) => ask(question),
  stop() { this.last?.last.stop(); },
  again(turn, question) { ask(question, this.turns.slice(0, this.turns.indexOf(turn))); },
  askForKey: () => askForKey(),
  begin: () => begin(),

  changed(turn) {
    const { error } = turn.last.reader;
    const named = location.hash.slice(1);
    // another stream of the same turn gets no new entry in the browser history
    if (turn === this.last && turn.id && named !== turn.id) {
      history[turn.ids.includes(named) ? "replaceState" : "pushState"](null, "", `#${turn.id}`);
    }
    if (error instanceof Refused && error.status === 401 && turn === this.last) askForKey(turn.id ? "" : turn.question);
    const { reader } = turn.last;
    const known = `${turn.id} ${reader.stream.ended}`;
    if (turn.last.isNew && turn.id && turn.listed !== known) { // the stream has begun or ended
      turn.listed = known;
      rail.look();
    }
    buttons();
  },

  async call(path, init = {}) { // tries once; returns nothing if the path does not exist
    const { key, headers } = this.options;
    const asked = { "content-type": "application/json", ...headers, ...(key && { authorization: `Bearer ${key}` }) };
    const answer = await fetch(path, { cache: "no-store", ...init, headers: asked }).catch(() => null);
    if (answer?.status === 401) askForKey();
    if (!answer?.ok) return null;
    return answer.status === 204 ? {} : answer.json();
  },
};
const [about, rail, composer, losing] = [new About(page), new Rail(page), new Composer(page), new Losing(page)];
const follower = new Follower($("turns"), $("dock"), $("jump"), () => page.live);

function buttons() {
  composer.show({ busy: page.busy, live: page.live, last: page.last?.last });
  losing.show(page.last?.last);
  $("welcome").hidden = page.turns.length > 0;
  document.body.dataset.view = page.turns.length ? "conversation" : "start";
}

function show(turns) {
  for (const turn of page.turns.filter((turn) => !turns.includes(turn))) turn.close();
  for (const turn of page.turns.filter((turn) => !turns.includes(turn))) turn.node.remove();
  const former = page.last;
  page.turns = turns;
  const list = $("turns");
  // an item in its place is not moved, so it keeps the focus
  turns.forEach(({ node }, at) => { if (list.children[at] !== node) list.insertBefore(node, list.children[at] ?? null); });
  // the possible actions of the earlier last turn have changed
  if (former !== page.last) former?.last.changed();
  document.title = turns[0]?.question ? `${turns[0].question.slice(0, 60)} · Holdfast` : "Holdfast";
  page.refused("");
  rail.draw();
  buttons();
}

const cutTo = (text, bytes) => new TextDecoder("utf-8").decode(new TextEncoder().encode(text).slice(0, bytes)).replace(/\ufffd+$/, "…");

/** Start a stream with the question alone, or as the next turn of these turns. */
function ask(question, before = page.turns) {
  const said = before.filter((turn) => turn.answered).slice(-MOST_TURNS);
  const messages = said.flatMap((turn) => [{ role: "user", content: turn.question }, { role: "assistant", content: turn.text }]);
  const body = messages.length ? { messages: [...messages, { role: "user", content: question }] } : { user: question };
  if (about.chain) body.chain = about.chain;
  if (!before.length && !page.turns.length) page.conversation = "";
  page.conversation ||= randomName();
  const metadata = { question: cutTo(question, QUESTION_BYTES), conversation: page.conversation, title: cutTo((before[0]?.question || question).replace(/\s+/g, " "), TITLE_BYTES) };
  const previous = before.findLast((turn) => turn.id)?.id;
  if (previous) metadata.previous = previous;
  const turn = new Turn(page, question, (gateway, signal) => gateway.stream({ ...body, metadata, signal }), true);
  show([...before, turn]);
  follower.follow();
  return turn.run();
}

const randomName = () => [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(36).padStart(2, "0")).join("");

/** Load the conversation that ends with the stream of this id, from the gateway only. */
async function load() {
  const id = location.hash.slice(1);
  if (id && page.last?.ids.includes(id)) return;
  const turns = [];
  const stands = () => !turns.length || page.last === turns.at(-1);
  for (let next = id; next && turns.length < MOST_TURNS && stands(); ) {
    const shown = next;
    const turn = new Turn(page, "", (gateway, signal) => gateway.follow(shown, "", { signal }));
    turns.unshift(turn);
    if (turns.length === 1) {
      page.conversation = "";
      show(turns);
      follower.follow();
      turn.run();
    }
    const status = await look(shown);
    const asked = status?.metadata?.question;
    turn.question = typeof asked === "string" ? asked : "";
    if (status && !turn.question) turn.fromElsewhere(shown);
    if (turns.length === 1 && status?.chain) about.chain = status.chain;
    if (stands()) page.conversation = status?.metadata?.conversation ?? shown;
    await complete(turn, status, stands);
    if (turns.length === 1) turn.run();
    next = status?.metadata?.previous ?? "";
  }
  if (!stands()) return;
  show(turns);
  for (const turn of turns.slice(0, -1)) turn.run();
}

const look = (id) => page.gateway.status(id).catch(() => null);

/** Load the other streams of a turn: the streams that its stream continues, and the streams that continue it
 * after an answer. */
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

// then repeat the question: a person need not type a refused question again
function askForKey(question = "") {
  const door = $("door");
  composer.text ||= question;
  if (door.open) return;
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem("key", $("key").value.trim());
    sessionStorage.setItem("question", composer.text);
    location.reload();
  };
  $("no-key").onclick = () => door.close();
  door.showModal();
}

/** Called when the network is back, or when a person looks at the page again: nobody has to reload the page.
 */
function wake(isOnline) {
  for (const answer of page.turns.flatMap((turn) => turn.answers)) answer.wake(isOnline);
  if (!about.model) about.watch();
  rail.look();
}

function begin() { // begins a new conversation
  show([]);
  page.conversation = "";
  history.pushState(null, "", location.pathname + location.search);
  if (rail.isDrawer) rail.open(false, false);
  rail.draw();
  $("box").focus();
}

$("new").onclick = begin;
addEventListener("popstate", () => (location.hash ? load() : show([])));
addEventListener("hashchange", load);
addEventListener("online", () => wake(true));
document.addEventListener("visibilitychange", () => { if (!document.hidden) wake(false); });

composer.text ||= sessionStorage.getItem("question") ?? "";
sessionStorage.removeItem("question");
$("kill-card").hidden = !page.own;
buttons();
about.watch();
about.list();
rail.look();
load();
