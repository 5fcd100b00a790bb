// One stream of a turn: shows what its reader has received, and the question that the graph has stopped to
// ask.
import { drawDetails, drawStages, result } from "./details.js";
import { copy, fill, make, put } from "./dom.js";
import { Growing } from "./growing.js";
import { QuestionForm } from "./question.js";
import { Reader } from "./reader.js";
import { Second } from "./second.js";
import { titles } from "./ways.js";
import { ANSWERED, LOSING, SAME, STATES, arrival, by, failure, told } from "./words.js";

const DRAW_MS = 50; // between two drawings
const DRAWING_MS = 16; // longest time for one drawing; the next one draws the rest
const ON_ITS_WAY_MS = 1000; // text that a dead worker has written may still arrive
const QUEUED_MS = 3000; // then ask the gateway whether a worker exists

export class Answer {
  isNew; checked = null; waits = ""; isAlone = false; wasKilled = false; takenOverBy = 0;
  #killedAt = 0; #killed = 0; #timer = 0; #isStale = false; #texts = []; #second = null; #form = null;

  /** `turn` has the `page` and the methods `changed`, `again`, `retry` and `resume`, which are called.
   * `isNew`: the stream starts now. */
  constructor(turn, start, isNew = false) {
    this.turn = turn;
    this.page = turn.page;
    this.isNew = isNew;
    this.node = document.getElementById("answer").content.firstElementChild.cloneNode(true);
    this.parts = Object.fromEntries([...this.node.querySelectorAll("[class]")].map((node) => [node.classList[0], node]));
    this.reader = new Reader(this.page.options, start, () => this.changed(), isNew);
    const { again, regenerate, retry, resume, how, another } = this.parts;
    again.onclick = () => (this.id ? turn.again() : this.run());
    regenerate.onclick = () => turn.again();
    retry.onclick = () => turn.retry(this);
    resume.onclick = () => this.run();
    this.parts.copy.onclick = ({ currentTarget }) => copy(this.said, currentTarget);
    how.onclick = () => {
      this.parts.arrived.hidden = !this.parts.arrived.hidden;
      how.setAttribute("aria-expanded", String(!this.parts.arrived.hidden));
    };
    another.onclick = () => this.openSecond();
    this.parts.said.onclick = ({ target }) => {
      const one = target.closest(".copy-code");
      if (one) copy(one.closest(".code").querySelector("pre").textContent.replace(/\n$/, ""), one);
    };
  }

  get id() { return this.reader.stream.id; }
  get text() { return this.reader.stream.text; }
  get said() { return this.#spoken.map(({ text }) => text.trim()).join("\n\n"); }
  get busy() { return this.reader.live && this.reader.state !== "away"; }
  get isDead() { return this.reader.live && this.#killedAt > 0 && this.#killedAt === this.reader.events.length; }
  get hasSecond() { return this.#second !== null; }

  /** The stages that have text, in order. If no stage has text: the result of the chain. */
  get #spoken() {
    const spoken = this.reader.stream.stages.filter(({ text }) => text);
    const made = spoken.length ? "" : result(this.reader.stream);
    return made ? [{ name: "", run: 1, text: made }] : spoken;
  }

  async run() {
    this.changed();
    const asked = setTimeout(() => this.#isQueued(), QUEUED_MS);
    await this.reader.run();
    clearTimeout(asked);
    if (this.reader.state === "ended") await this.#compare();
    this.changed();
  }

  /** Called when the network is back, or when a person looks at the page again. */
  wake(isOnline) {
    if (this.reader.wake(isOnline)) this.run();
    this.#second?.wake(isOnline);
  }

  close() {
    this.reader.close();
    this.#second?.close();
    clearTimeout(this.#timer);
  }

  focus() { this.node.querySelector("article").focus({ preventScroll: true }); }

  changed() {
    if (this.#killedAt && performance.now() - this.#killed < ON_ITS_WAY_MS) this.#killedAt = this.reader.events.length;
    this.turn.changed();
    this.#isStale = true;
    this.#timer ||= setTimeout(() => this.#draw(), DRAW_MS);
  }

  async stop() {
    if (!this.id) return this.close();
    await this.page.gateway.cancel(this.id).catch((error) => this.page.refused(told(error)[0]));
  }

  async kill() {
    if (this.isDead || !this.reader.stream.stages.length) return;
    const answer = await this.page.call("dev/kill-worker", { method: "POST", body: JSON.stringify({ id: this.id }) });
    if (answer?.killed) {
      [this.wasKilled, this.#killedAt, this.#killed] = [true, this.reader.events.length, performance.now()];
      this.takenOverBy = this.#killed + answer.lease_seconds * 1000;
    }
    this.page.refused(!answer ? LOSING.foreign : answer.killed ? "" : LOSING.nobody);
    this.changed();
  }

  openSecond() {
    if (this.#second) return;
    this.#second = new Second(this);
    this.parts["second-close"].focus({ preventScroll: true });
    this.changed();
  }

  closeSecond() {
    this.#second.close();
    this.#second = null;
    this.focus();
    this.changed();
  }

  /** The question was answered, or needs no answer any more; `[question, answer]` where they are known. */
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

  /** The form that asks a question, while a question is open. */
  get form() { return this.#form; }

  #ask(status) { // if the gateway gives no status, the answer itself will show whether it waits
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

  async #compare() { // compares what was received here with what the gateway has stored
    const status = await this.page.gateway.status(this.id).catch(() => null);
    this.#ask(status);
    if (!status) return;
    const { stages, lastEventId } = this.reader.stream;
    this.checked = status.last_event_id === lastEventId && status.stages.length === stages.length
      && status.stages.every((stage, at) => stage.text === stages[at].text);
  }

  async #isQueued() {
    if (!this.reader.live || this.reader.stream.stages.length) return;
    this.isAlone = (await this.page.call("ready"))?.workers?.state === "none_seen";
    this.changed();
  }

  #draw() {
    const began = performance.now();
    this.#isStale = false;
    const { node, parts, reader } = this;
    const { stream, end, error } = reader;
    const [cause, retry] = error ? told(error) : stream.ended === "failed" ? [failure(end), end.retryable] : ["", false];
    drawStages(parts.stages, reader);
    drawDetails(parts, reader);
    const isAll = this.#drawText(began);
    this.#isStale ||= !isAll;
    const isLast = this === this.turn.last;
    const failed = stream.ended === "failed" && isLast;
    put(parts.cause, cause);
    parts.note.hidden = !cause;
    parts.resume.hidden = !(reader.state === "lost" && retry && this.id);
    parts.again.hidden = !(failed || (reader.state === "lost" && (!this.id || !retry)));
    parts.retry.hidden = !(failed && stream.stages.some(({ parent, state }) => !parent && state === "finished"));
    node.dataset.state = reader.live ? "live" : this.waits || stream.ended || "lost";
    this.#drawFoot();
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.#isStale) this.#draw();
    }, isAll ? DRAW_MS : 0);
  }

  /** Draw the text of each stage as a separate block; returns whether all text is drawn. */
  #drawText(began) {
    const { said } = this.parts, { reader } = this;
    const spoken = this.#spoken;
    const wanted = Math.max(1, spoken.length);
    while (this.#texts.length > wanted) this.#texts.pop().node.remove();
    let isAll = true;
    for (let at = 0; at < wanted && (isAll = performance.now() - began < DRAWING_MS || at === 0); at++) {
      const one = (this.#texts[at] ??= this.#block(said));
      const { name = "", run = 1, text = "", state = "" } = spoken[at] ?? {};
      const isOver = !reader.live || state === "finished" || at < spoken.length - 1;
      put(one.label, spoken.length > 1 ? (run > 1 ? `${name} ${run}` : name) : "");
      while (!(isAll = one.growing.draw(text, isOver)) && performance.now() - began < DRAWING_MS);
      const grows = reader.live && reader.state === "open" && reader.stream.stages.length > 0 && at === wanted - 1;
      one.text.classList.toggle("growing", grows);
      // screen readers read the text when it is complete
      one.text.setAttribute("aria-busy", String(reader.live));
      if (!isAll) break;
    }
    return isAll;
  }

  #block(said) {
    const [node, label, text] = [make("section"), make("p", "", "stage-name"), make("div", "", "answer")];
    text.setAttribute("aria-live", "polite");
    node.append(label, text);
    said.append(node);
    return { node, label, text, growing: new Growing(text) };
  }

  #drawFoot() {
    const { parts, reader } = this;
    const { stream, state } = reader;
    const running = stream.stages.length ? "running" : "queued";
    const is = this.isDead ? "dead" : state === "lost" ? "lost" : state === "away" ? "away"
      : running === "queued" && reader.live && this.isAlone ? "nobody" : running === "queued" && this.page.model === "loading" && reader.live ? "loading"
        : this.waits || stream.ended || running;
    put(parts.state, STATES[is]);
    const isQuiet = is === "done" || is === "unknown" || (is === "failed" && !parts.note.hidden);
    parts.state.className = `state ${isQuiet ? "unseen" : ""} ${["dead", "lost", "away", "nobody", "failed"].includes(is) ? "warn" : ""} ${reader.live ? "busy" : ""}`;
    parts.copy.hidden = reader.live || !this.said;
    parts.regenerate.hidden = reader.live || this !== this.turn.last || !this.turn.isLast || !["done", "cancelled", "unknown"].includes(stream.ended) || this.waits === "waiting";
    parts.how.hidden = !reader.events.length;
    parts.another.hidden = reader.live || this.hasSecond;
    put(parts.by, reader.live ? "" : by(reader.model));
    const words = [...arrival(reader), ...(this.checked === null ? [] : [SAME[this.checked]])];
    fill(parts.trail, words.map((one) => make("li", one)));
  }
}
