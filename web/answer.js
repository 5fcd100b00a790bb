// One stream of a turn: what its reader has, as a person sees it, and what the graph has stopped to ask.
import { render } from "./markdown.js";
import { QuestionForm } from "./question.js";
import { Reader } from "./reader.js";
import { titles } from "./ways.js";
import { ANSWERED, STATES, failure, plural, seconds, told } from "./words.js";

const DRAW_MS = 60; // between two drawings, or ten times as long as the last one took

const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
const put = (node, text) => { // the same text again would be read aloud again
  if (node.textContent !== text) node.textContent = text;
  node.hidden = !text;
};

export class Answer {
  checked = ""; killed = 0; drawn = ""; waits = ""; #timer = 0; #stale = false; #list = ""; #open = -1; #second = null; #form = null;

  /** `turn` has the `page`, and is told of `changed`, of `again`, `retry` and `resume`. */
  constructor(turn, start) {
    this.turn = turn;
    this.page = turn.page;
    this.node = document.getElementById("answer").content.firstElementChild.cloneNode(true);
    this.parts = Object.fromEntries([...this.node.querySelectorAll("[class]")].map((node) => [node.className, node]));
    this.reader = new Reader(this.page.options, start, () => this.changed());
    const { cut, other, kill, stop, again, retry, resume, copy } = this.parts;
    cut.onclick = () => this.reader.cut();
    stop.onclick = () => this.#stop();
    kill.onclick = () => this.#kill();
    again.onclick = () => turn.again();
    retry.onclick = () => turn.retry(this);
    resume.onclick = () => this.run();
    copy.onclick = () => navigator.clipboard.writeText(this.said).then(() => put(copy, "Copied"), () => put(copy, "Not allowed"));
    other.onclick = () => this.#openSecond();
    this.parts["second-cut"].onclick = () => this.#second.cut();
    this.parts["second-close"].onclick = () => this.#closeSecond();
  }

  get id() { return this.reader.stream.id; }
  get text() { return this.reader.stream.text; }
  get said() { return this.text || result(this.reader.stream); }
  get busy() { return this.reader.live && this.reader.state !== "away"; }

  async run() {
    this.changed();
    await this.reader.run();
    if (this.reader.state === "ended") await this.#compare();
    this.changed();
  }

  close() {
    this.reader.close();
    this.#second?.close();
    clearTimeout(this.#timer);
  }

  changed() {
    this.turn.changed();
    this.#stale = true;
    this.#timer ||= setTimeout(() => this.#draw(), DRAW_MS);
  }

  async #stop() {
    if (!this.id) return this.close();
    await this.page.gateway.cancel(this.id).catch((error) => this.page.refused(told(error)[0]));
  }

  async #kill() {
    const answer = await this.page.call("dev/kill-worker", { method: "POST", body: JSON.stringify({ id: this.id }) });
    if (answer?.killed) this.killed = this.reader.events.length;
    this.page.refused(!answer ? "Only a gateway of your own lets its workers be killed: make run."
      : answer.killed ? "" : "Nobody is at work on this answer just now.");
    this.lease = answer?.lease_seconds;
    this.changed();
  }

  /** What was asked is answered, or is not to be answered any more; `[question, answer]` where they are known. */
  settle(waits, words, answers = []) {
    const { asking } = this.parts;
    const hadFocus = this.#form?.hasFocus;
    this.waits = waits;
    this.#form = null;
    const list = make("dl");
    list.append(...answers.flatMap(([question, answer]) => [make("dt", question), ...(answer ? [make("dd", answer)] : [])]));
    asking.replaceChildren(make("p", words), ...(answers.length ? [list] : []));
    if (hadFocus) asking.focus();
    this.changed();
  }

  /** The form that asks, while it does. */
  get form() { return this.#form; }

  #ask(status) { // where the gateway cannot be asked whether it waits, the answer will show it
    const { stream, end } = this.reader;
    if (this.waits || !stream.interrupted) return;
    this.parts.asking.hidden = false;
    if (status && status.status !== "waiting") {
      const [waits, words] = status.resumed_by ? ["answered", ANSWERED.known] : ["stopped", status.status === "cancelled" ? ANSWERED.over : ANSWERED.never];
      return this.settle(waits, words, stream.interrupts.flatMap(titles).map((title) => [title, ""]));
    }
    this.waits = "waiting";
    this.#form = new QuestionForm(stream.interrupts, end.next, (responses, words) => this.turn.resume(this, responses, words));
    this.parts.asking.replaceChildren(this.#form.node);
  }

  async #compare() { // what was received here against what the gateway holds
    const status = await this.page.gateway.status(this.id).catch(() => null);
    this.#ask(status);
    if (!status) return;
    const { stages, lastEventId } = this.reader.stream;
    const same = status.last_event_id === lastEventId && status.stages.length === stages.length
      && status.stages.every((stage, at) => stage.text === stages[at].text);
    this.checked = same ? "same text as the gateway's record" : "differs from the gateway's record";
  }

  #draw() {
    const began = performance.now();
    this.#stale = false;
    const { node, parts, reader } = this;
    const { stream, end, error } = reader;
    const bottom = document.documentElement;
    const follows = innerHeight + scrollY > bottom.scrollHeight - 120;
    const [note, retry] = error ? told(error) : stream.ended === "failed" ? [failure(end), end.retryable] : ["", false];
    this.#drawState(note !== "");
    this.#drawStages();
    this.#drawDetails();
    if (this.drawn !== this.said) parts.answer.replaceChildren(render((this.drawn = this.said)));
    parts.answer.classList.toggle("growing", reader.live && reader.state === "open" && stream.stages.length > 0);
    parts.answer.setAttribute("aria-busy", String(reader.live)); // read aloud when it is whole
    put(parts.note, note);
    parts.resume.hidden = !(reader.state === "lost" && retry);
    const failed = stream.ended === "failed" && this === this.turn.last;
    parts.again.hidden = !(failed && retry);
    parts.retry.hidden = !(failed && (retry || stream.stages.some(({ parent, state }) => !parent && state === "finished")));
    parts.copy.hidden = reader.live || !this.said;
    node.dataset.state = reader.live ? "live" : this.waits || stream.ended || "lost";
    if (follows && this === this.page.last?.last) scrollTo(0, bottom.scrollHeight);
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.#stale) this.#draw();
    }, Math.max(DRAW_MS, (performance.now() - began) * 10));
  }

  #drawState(warned) {
    const { parts, reader } = this;
    const { stream, state } = reader;
    const running = stream.stages.length ? "running" : "queued";
    const dead = this.killed && this.killed === reader.events.length;
    const words = dead ? "The worker is dead" : state === "lost" ? "Not followed" : state === "away" ? "Connection cut, coming back"
      : running === "queued" && this.page.model === "loading" && reader.live ? "Waiting for the model to load" : STATES[this.waits || stream.ended || running];
    put(parts.state, words);
    parts.state.className = `state ${warned || dead || ["away", "lost"].includes(state) ? "warn" : ""} ${reader.live ? "busy" : ""}`;
    for (const name of ["cut", "stop"]) parts[name].hidden = !reader.live;
    parts.cut.disabled = state !== "open";
    parts.other.hidden = !stream.id || Boolean(this.#second);
    parts.kill.hidden = !(reader.live && running === "running" && this.page.own);
    const { usage, finish_reason: why, duration_ms: took, attempts = 1 } = reader.end ?? {};
    put(parts.trail, [
      dead && `its lease ends within ${this.lease} s; then another goes on`,
      reader.firstTokenMs && `first token after ${seconds(reader.firstTokenMs)}`, took && `${seconds(took)} in all`,
      usage?.total_tokens && `${plural(usage.input_tokens, "token")} in, ${usage.output_tokens} out`, why === "length" && "the model's limit",
      attempts > 1 && plural(attempts, "attempt"), ...trail(reader), this.checked].filter(Boolean).join(" · "));
  }

  #drawStages() {
    const { parts, reader } = this;
    const { stages } = reader.stream;
    const waiting = reader.names.filter((name) => !stages.some((stage) => stage.name === name));
    const steps = [...stages, ...waiting.map((name) => ({ name, run: 1, state: "waiting", parent: "" }))];
    const list = JSON.stringify(steps.map(({ name, run, state, parent }) => [name, run, state, parent, this.#open]));
    parts.stages.hidden = steps.length < 2;
    if (this.#list !== list) {
      this.#list = list;
      parts.stages.replaceChildren(...steps.map((step, at) => this.#step(step, at)));
    }
    const shown = stages[this.#open];
    parts["stage-text"].hidden = !shown;
    if (shown) parts["stage-text"].textContent = shown.text || "It has said nothing.";
  }

  #step({ name, run, state, parent }, at) {
    const item = make("li", "", `${state}${parent ? " node" : ""}`);
    const button = make("button", run > 1 ? `${name} ${run}` : name);
    button.type = "button";
    button.disabled = state === "waiting";
    button.setAttribute("aria-expanded", String(this.#open === at));
    button.setAttribute("aria-label", `${button.textContent}, ${state}`);
    button.onclick = () => { this.#open = this.#open === at ? -1 : at; this.#drawStages(); };
    item.append(button);
    if (state === "started") item.setAttribute("aria-current", "step");
    return item;
  }

  #drawDetails() {
    const { reasoning, tools, sources } = this.parts;
    const events = this.reader.stream.stages.flatMap((stage) => stage.events);
    const custom = (name) => events.filter(({ type, data }) => type === "custom" && data.name === name).map(({ data }) => data.data ?? {});
    reasoning.hidden = !custom("reasoning").length;
    reasoning.lastElementChild.textContent = custom("reasoning").map(({ delta }) => delta).join("");
    const calls = new Map();
    for (const { data } of events.filter(({ type }) => type === "tool")) calls.set(data.call_id, { ...calls.get(data.call_id), ...data });
    fill(tools, [...calls.values()].map(call));
    const found = new Map(custom("sources").flatMap(({ documents = [] }) => documents).map((one) => [one.id ?? one.source, one]));
    sources.hidden = !found.size;
    sources.firstElementChild.textContent = plural(found.size, "source");
    fill(sources.lastElementChild, [...found.values()].map(source));
  }

  #openSecond() {
    const { second, other } = this.parts;
    const id = this.id;
    this.#second = new Reader(this.page.options, (gateway, signal) => gateway.follow(id, "", { signal }), () => this.#drawSecond());
    second.hidden = false;
    other.hidden = true;
    this.#second.run();
    this.parts["second-close"].focus();
  }

  #closeSecond() {
    this.#second.close();
    this.#second = null;
    this.parts.second.hidden = true;
    this.parts.other.hidden = false;
    this.parts.other.focus();
  }

  #drawSecond() {
    const reader = this.#second;
    if (!reader) return;
    const pre = this.parts.second.querySelector("pre");
    pre.textContent = reader.stream.text;
    pre.scrollTop = pre.scrollHeight;
    const first = this.reader.events;
    const same = reader.events.every((event, at) => at >= first.length || event === first[at]);
    put(this.parts["second-state"], reader.error ? told(reader.error)[0] : reader.state === "away" ? "Cut, coming back" : STATES[reader.stream.ended || "running"]);
    this.parts["second-cut"].disabled = reader.state !== "open";
    put(this.parts["second-trail"], [...trail(reader), same ? "the same as the first reader's, byte for byte" : "differs from the first reader's"].join(" · "));
  }
}

/** How the events came. */
const trail = (reader) => [
  reader.events.length && `${plural(reader.events.length, "event")}, ${reader.doubled || "none"} twice`,
  reader.cuts && `cut ${reader.cuts === 1 ? "once" : `${reader.cuts} times`}`,
  reader.resumes && `resumed ${reader.resumes > 1 ? `${reader.resumes} times, last ` : ""}behind event ${reader.resumedFrom}`,
  reader.logLost && "the store had lost some, all was sent again"].filter(Boolean);

/** What a chain that says no text has come to. */
function result({ stages }) {
  const found = stages.at(-1)?.events.findLast(({ type, data }) => type === "custom" && data.name === "result");
  return found ? `\`\`\`json\n${JSON.stringify(found.data.data, null, 2)}\n\`\`\`` : "";
}

function fill(list, items) { // only what has changed: an open one stays open, and nothing is read aloud twice
  list.hidden = !items.length;
  items.forEach((item, at) => {
    const old = list.children[at];
    if (!old) list.append(item);
    else if (old.textContent !== item.textContent || old.className !== item.className) {
      if (old.querySelector("details")?.open) item.querySelector("details").open = true;
      old.replaceWith(item);
    }
  });
  while (list.children.length > items.length) list.lastElementChild.remove();
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

function call({ name, state, input, output }) {
  const item = make("li", "", state), details = make("details"), summary = make("summary", name);
  summary.append(make("span", state === "started" ? "running" : state, "how"));
  details.append(summary, make("pre", shown(input ?? "")), ...(output === undefined ? [] : [make("pre", shown(output), "output")]));
  item.append(details);
  return item;
}

function source({ title, source: where, text = "" }) {
  const item = make("li"), link = /^https?:/.test(where ?? "") ? make("a", title || where) : make("strong", title || where);
  if (link.nodeName === "A") Object.assign(link, { href: where, target: "_blank", rel: "noopener noreferrer" });
  item.append(link, make("span", title && where !== title ? ` ${where ?? ""}` : "", "where"), make("p", text));
  return item;
}
