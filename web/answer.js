// One stream of a turn: what its reader has, as a person sees it, and what the graph has stopped to ask.
import { drawDetails, drawStages } from "./details.js";
import { copy, fill, make, put } from "./dom.js";
import { QuestionForm } from "./question.js";
import { Reader } from "./reader.js";
import { Pace, Said, spoken } from "./said.js";
import { Second } from "./second.js";
import { titles } from "./ways.js";
import { ANSWERED, LOSING, SAME, STATES, arrival, by, failure, told } from "./words.js";

const ON_ITS_WAY_MS = 1000; // after a worker's death, what it had written may still arrive
const QUEUED_MS = 3000; // after which it is asked whether there is a worker at all

export class Answer {
  isNew; checked = null; waits = ""; isAlone = false; wasKilled = false; takenOverBy = 0;
  hadSecond = false;
  #killedAt = 0; #killed = 0; #pace = new Pace((began) => this.#draw(began)); #said; #second = null; #form = null;

  /** `turn` has the `page`, and is told of `changed`, of `again`, `retry` and `resume`. `isNew`: the stream starts now. */
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
    this.#said = new Said(this.parts.said, true);
  }

  get id() { return this.reader.stream.id; }
  get text() { return this.reader.stream.text; }
  get said() { return spoken(this.reader.stream).map(({ text }) => text.trim()).join("\n\n"); }
  get busy() { return this.reader.live && this.reader.state !== "away"; }
  get isDead() { return this.reader.live && this.#killedAt > 0 && this.#killedAt === this.reader.events.length; }
  get canKill() { return !this.isDead && !this.reader.isUnanswered && this.reader.stream.stages.length > 0; }
  get hasSecond() { return this.#second !== null; }

  async run() {
    this.changed();
    const asked = setTimeout(() => this.#isQueued(), QUEUED_MS);
    await this.reader.run();
    clearTimeout(asked);
    if (this.reader.state === "ended") await this.#compare();
    this.changed();
  }

  /** The network is back, or somebody looks at the page again. */
  wake(isOnline) {
    if (this.reader.wake(isOnline)) this.run();
    this.#second?.wake(isOnline);
  }

  close() {
    this.reader.close();
    this.#second?.close();
    this.#pace.close();
  }

  focus() { this.node.querySelector("article").focus({ preventScroll: true }); }

  changed() {
    if (this.#killedAt && performance.now() - this.#killed < ON_ITS_WAY_MS) this.#killedAt = this.reader.events.length;
    this.turn.changed();
    this.#second?.changed(); // it is compared with this one
    this.#pace.changed();
  }

  async stop() {
    if (!this.id) return this.close();
    await this.page.gateway.cancel(this.id).catch((error) => this.page.refused(told(error)[0]));
  }

  async kill() {
    if (!this.canKill) return;
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
    this.hadSecond = true;
    this.parts["second-close"].focus({ preventScroll: true });
    this.changed();
  }

  closeSecond() {
    this.#second.close();
    this.#second = null;
    this.focus();
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
    this.checked = status.last_event_id === lastEventId && status.stages.length === stages.length
      && status.stages.every((stage, at) => stage.text === stages[at].text);
  }

  async #isQueued() {
    if (!this.reader.live || this.reader.stream.stages.length) return;
    this.isAlone = (await this.page.call("ready"))?.workers?.state === "none_seen";
    this.changed();
  }

  #draw(began) {
    const { node, parts, reader } = this;
    const { stream, end, error } = reader;
    const [cause, retry] = error ? told(error) : stream.ended === "failed" ? [failure(end), end.retryable] : ["", false];
    drawStages(parts.stages, reader);
    drawDetails(parts, reader);
    const isAll = this.#said.draw(reader, began);
    const isLast = this === this.turn.last;
    const failed = stream.ended === "failed" && isLast;
    const isKept = failed && stream.stages.some(({ parent, state }) => !parent && state === "finished");
    put(parts.cause, cause);
    put(parts.detail, (stream.ended === "failed" && end.detail) || ""); // development alone has it
    parts.note.hidden = !cause;
    parts.resume.hidden = !(reader.state === "lost" && retry && this.id);
    parts.again.hidden = !((failed && (this.turn.asked || !isKept)) || (reader.state === "lost" && (!this.id || (!retry && this.turn.asked))));
    parts.retry.hidden = !isKept;
    node.dataset.state = reader.live ? "live" : this.waits || stream.ended || "lost";
    this.#drawFoot();
    return isAll;
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
    parts.regenerate.hidden = reader.live || this !== this.turn.last || !this.turn.isLast || !this.turn.asked || !["done", "cancelled", "unknown"].includes(stream.ended) || this.waits === "waiting";
    parts.how.hidden = !reader.events.length;
    parts.another.hidden = reader.live || this.hasSecond;
    put(parts.by, reader.live ? "" : by(reader.model));
    const isCompared = this.checked === false || (this.checked && !["failed", "cancelled"].includes(stream.ended));
    const words = [...arrival(reader), ...(isCompared ? [SAME[this.checked]] : [])];
    fill(parts.trail, words.map((one) => make("li", one)));
  }
}
