// One question of a person, and the streams that answer it: the first stream, and each stream that continues
// it, after the answer to a graph's question or as a retry of a failure. Each stream has only text that the
// streams before it do not have.
import { Refused } from "./client.js";
import { Answer } from "./answer.js";
import { growing, sendsOnEnter } from "./composer.js";
import { button, copy, make } from "./dom.js";
import { ANSWERED, notTaken, told } from "./words.js";

const follow = (id) => (gateway, signal) => gateway.follow(id, "", { signal });

export class Turn {
  answers = []; #begun = new Set(); #next = null; // #next: a stream that was requested and has not begun

  /** `page` has `options` for gateways, a `gateway`, and the methods `changed` and `again`, which are called.
   * `isNew`: the question is asked now. */
  constructor(page, question, start, isNew = false) {
    this.page = page;
    this.node = document.getElementById("turn").content.firstElementChild.cloneNode(true);
    const part = (name) => this.node.querySelector(`.${name}`);
    this.parts = { bubble: part("bubble"), asked: part("asked"), edit: part("edit"), whole: part("question"), elsewhere: part("elsewhere"), actions: part("question-actions") };
    this.parts.edit.onclick = () => this.#edit();
    part("copy-question").onclick = ({ currentTarget }) => copy(this.asked, currentTarget);
    this.question = question;
    this.#add(new Answer(this, start, isNew));
  }

  get last() { return this.answers.at(-1); }
  get ids() { return this.answers.map(({ id }) => id); }
  get id() { return this.last.id; }
  get text() { return this.answers.findLast(({ text }) => text)?.text ?? ""; }
  get answered() { return this.last.reader.stream.ended === "done" && this.text !== ""; }
  get busy() { return this.answers.some((answer) => answer.busy); }
  get question() { return this.asked; }
  set question(text) {
    this.asked = text;
    this.parts.asked.textContent = text;
    requestAnimationFrame(() => { // a long question scrolls, with the keyboard too
      const { bubble } = this.parts;
      if (bubble.scrollHeight > bubble.clientHeight) bubble.tabIndex = 0;
    });
    this.parts.whole.hidden = !text;
    this.last?.changed(); // what may be done with its answer
  }

  /** Say whose question is not known here: that of the stream of this id. */
  fromElsewhere(id) {
    const { whole, elsewhere, bubble, actions } = this.parts;
    elsewhere.lastElementChild.textContent = id;
    [whole.hidden, elsewhere.hidden, bubble.hidden, actions.hidden] = [false, false, true, true];
  }

  get isLast() { return this.page.last === this; }
  get live() { return this.answers.some(({ reader }) => reader.live); }

  /** Follow those streams of the turn that are not followed yet. */
  run() {
    return Promise.all(this.answers.filter((answer) => !this.#begun.has(answer)).map((answer) => this.#run(answer)));
  }

  close() { for (const answer of [...this.answers, this.#next]) answer?.close(); }
  changed() {
    this.parts.edit.hidden = this.live;
    this.page.changed(this);
  }

  /** Ask anew; what failed and was asked elsewhere, by the question that the gateway has. */
  again() {
    if (this.asked) this.page.again(this, this.asked);
    else this.retry(this.last);
  }

  /** Edit the question; the turns after it are discarded and asked again. */
  #edit() {
    const form = make("form", "", "rewrite");
    const box = Object.assign(make("textarea", this.asked), { rows: 1, dir: "auto" });
    box.setAttribute("aria-label", "Your question, to be edited");
    const actions = make("div", "", "actions");
    const leave = button("Cancel", "leave");
    actions.append(leave, make("button", "Ask this instead", "main"));
    form.append(box, actions);
    const children = [...this.parts.whole.children];
    const close = () => {
      form.remove();
      for (const child of children) child.hidden = false;
      this.parts.edit.focus();
    };
    for (const child of children) child.hidden = true;
    this.parts.whole.append(form);
    leave.onclick = close;
    box.onkeydown = ({ key }) => { if (key === "Escape") close(); };
    sendsOnEnter(box);
    form.onsubmit = (event) => {
      event.preventDefault();
      if (box.value.trim() && !this.page.busy) this.page.again(this, box.value.trim());
    };
    growing(box)();
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  /** Add an existing stream before or after the streams that are shown. */
  before(id) { this.#add(new Answer(this, follow(id)), 0); }
  after(id) { if (!this.ids.includes(id)) this.#add(new Answer(this, follow(id))); }

  /** Retry a failed stream. The key is derived from the stream's id, so repeated requests start only one
   * retry. */
  async retry(failed) {
    failed.parts.retry.disabled = true;
    const error = await this.#goOn((gateway, signal) => gateway.retry(failed.id, { key: `page-retries-${failed.id}`, signal }));
    failed.parts.retry.disabled = false;
    this.page.refused(error ? told(error)[0] : "");
  }

  /** Answer the question of a stream. If another person has answered first, show the stream that continues
   * with that answer. */
  async resume(asking, responses, words) {
    const { form } = asking;
    [form.problem, form.sending] = ["", true];
    const error = await this.#goOn((gateway, signal) => gateway.resume(asking.id, responses, { signal }), () => asking.settle("answered", ANSWERED.you, words));
    if (!error) return;
    if (error instanceof Refused && error.code === "already_answered") {
      asking.settle("answered", ANSWERED.other);
      this.after(error.problem.resumed_by);
      await this.run();
      return;
    }
    const [why, again] = notTaken(error);
    if (!again) {
      asking.settle("stopped", why);
      return;
    }
    [form.sending, form.problem] = [false, why];
    if (error instanceof Refused && error.status === 401) this.page.askForKey();
  }

  /** Start a stream that continues this turn; returns when the stream has begun, with the error if it could
   * not begin. */
  async #goOn(start, begun = () => {}) {
    const next = (this.#next = new Answer(this, start, true));
    this.#begun.add(next);
    next.run(); // never throws
    await next.reader.begun;
    this.#next = null;
    if (!next.id) {
      next.close();
      return next.reader.error;
    }
    if (this.ids.includes(next.id)) next.close(); // the stream is shown already
    else this.#add(next);
    begun();
    return null;
  }

  #run(answer) {
    this.#begun.add(answer);
    return answer.run();
  }

  #add(answer, at = this.answers.length) {
    this.node.insertBefore(answer.node, this.answers[at]?.node ?? null);
    this.answers.splice(at, 0, answer);
    // fewer actions are possible for the other answers now
    for (const other of this.answers) if (other !== answer) other.changed();
  }
}
