// The form in which a person answers the questions of a stopped graph. One request sends all answers.
import { asked, read, told } from "./ways.js";
import { ASKS } from "./words.js";

const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
const button = (text, name = "") => Object.assign(make("button", text, name), { type: "button" });
let made = 0; // a counter for ids that are unique in the document

export class QuestionForm {
  #asked; #items; #answer; #focused = null;
  #problem = make("p", "", "problem");
  #send = make("button", "", "main");

  /**
   * `interrupts` are those of the `done` event. They are empty if a graph has stopped at a breakpoint, before
   * the nodes `next`. `answer` is called with the answers, keyed by the ids of the interrupts, and with a
   * list of `[question, answer]` in words.
   */
  constructor(interrupts, next, answer) {
    this.#answer = answer;
    this.#asked = interrupts.map((one) => ({ id: one.id, ...asked(one) }));
    const items = this.#asked.flatMap(({ items }) => items);
    const named = (title, at) => { // number the titles when one tool is called twice
      const same = items.filter((item) => item.title === title);
      return same.length > 1 ? ASKS.numbered(title, same.indexOf(items[at]) + 1, same.length) : title;
    };
    this.#items = items.map((item, at) => new Item({ ...item, title: named(item.title, at) }, () => this.#chosen()));
    this.node = make("form");
    this.node.noValidate = true; // #check shows errors in the page, not in a bubble that disappears
    this.node.setAttribute("aria-label", ASKS.question);
    this.#problem.setAttribute("role", "alert");
    this.problem = "";
    const actions = make("div", "", "actions");
    actions.append(this.#send);
    const stopped = this.#items.length ? [] : [make("p", ASKS.stopped(next))];
    this.node.append(...stopped, ...this.#items.map((item) => item.node), this.#problem, actions);
    this.node.onsubmit = (event) => { event.preventDefault(); this.#submit(); };
    this.#label();
  }

  set problem(text) {
    this.#problem.textContent = text;
    this.#problem.hidden = !text;
  }

  /** Whether the keyboard focus is in this form, or was in it when the answer was sent and is on no element
   * since. */
  get hasFocus() {
    const now = document.activeElement;
    return this.node.contains(now) || (this.#focused !== null && now === document.body);
  }

  /** Disable the form while an answer is being sent. */
  set sending(is) {
    this.node.setAttribute("aria-busy", String(is));
    if (is && this.hasFocus) this.#focused = document.activeElement; // a disabled element loses the focus
    for (const one of this.node.querySelectorAll("button, input, textarea, select")) one.disabled = is;
    if (is) this.#send.textContent = ASKS.sending;
    else {
      this.#label();
      if (this.hasFocus) this.#focused?.focus();
      this.#focused = null;
    }
  }

  #chosen() {
    this.problem = "";
    this.#label();
    const [first, ...others] = this.#items;
    // a single way without fields needs no more input: send it
    if (!others.length && first.way && !first.way.fields.length) this.#submit();
  }

  #label() {
    this.#send.textContent = this.#items.length ? ASKS.send(this.#items.length) : ASKS.goOn;
    this.#send.hidden = this.#items.length === 1 && !this.#items[0].way?.fields.length;
  }

  #submit() {
    for (const item of this.#items) {
      const [problem, where] = item.check();
      if (!problem) continue;
      this.problem = problem;
      where.focus();
      return;
    }
    let at = 0;
    const take = (count) => this.#items.slice(at, (at += count)).map((item) => item.value);
    const responses = Object.fromEntries(this.#asked.map(({ id, items, answer }) => [id, answer(take(items.length))]));
    this.#answer(responses, this.#items.map((item) => [item.title, item.told]));
  }
}

/** One decision: its subject, one button for each way to decide, and the fields of the chosen way. */
class Item {
  way; value; told = ""; #fields = []; #made = new Map(); #ways; #buttons; #where = make("div", "", "fields"); #chosen;

  constructor({ title, text, shown, ways }, chosen) {
    this.title = title;
    this.#ways = ways;
    this.#chosen = chosen;
    this.node = make("fieldset");
    this.node.append(make("legend", title));
    if (text) this.node.append(make("p", text));
    if (shown !== undefined) {
      const pre = make("pre", JSON.stringify(shown, null, 2));
      pre.tabIndex = 0; // so that the keyboard can scroll it
      pre.setAttribute("role", "group");
      pre.setAttribute("aria-label", ASKS.shown);
      this.node.append(pre);
    }
    const isAlone = ways.length === 1 && !ways[0].label;
    this.#buttons = isAlone ? [] : ways.map((way) => this.#button(way));
    const row = make("div", "", "ways");
    row.append(...this.#buttons);
    this.node.append(...(isAlone ? [] : [row]), this.#where);
    if (isAlone) this.#choose(ways[0]);
  }

  /** Prepare the values for sending; returns the reason why they cannot be sent, and the element to correct.
   */
  check() {
    if (!this.way) return [ASKS.missing(this.title), this.#buttons[0]];
    const given = {};
    for (const field of this.#fields) {
      const problem = field.check();
      if (problem) return [`${field.label}: ${problem}`, field.input];
      given[field.name] = field.value;
    }
    this.value = this.way.value(given);
    this.told = told(this.way, this.#fields.map(({ input }) => input.value));
    return ["", null];
  }

  #button(way) {
    const one = button(way.label);
    one.setAttribute("aria-pressed", "false");
    one.onclick = () => {
      this.#choose(way);
      this.#fields[0]?.input.focus();
      this.#chosen();
    };
    return one;
  }

  #choose(way) {
    this.way = way;
    // keep the fields with their text for when the way is chosen again
    if (!this.#made.has(way)) this.#made.set(way, way.fields.map((field) => new Field(field)));
    this.#fields = this.#made.get(way);
    this.#where.replaceChildren(...this.#fields.map(({ node }) => node));
    this.#buttons?.forEach((one, at) => one.setAttribute("aria-pressed", String(this.#ways[at] === way)));
  }
}

class Field {
  value; #field; #isJson = null;

  constructor(field) {
    this.#field = field;
    [this.name, this.label] = [field.name, field.label];
    this.input = this.#made(field);
    this.input.id = `field-${++made}`;
    this.input.value = field.initial ?? "";
    this.input.required = field.required;
    this.input.oninput = () => this.input.removeAttribute("aria-invalid");
    const label = Object.assign(make("label", field.label), { htmlFor: this.input.id });
    this.node = make("div");
    this.node.append(label, this.input);
    if (field.help) this.#help(field.help);
    if (field.kind === "any") this.#jsonToo();
  }

  /** Read the field; returns the error, if there is one. */
  check() {
    const wrong = this.#wrong();
    this.input.setAttribute("aria-invalid", String(Boolean(wrong)));
    return wrong;
  }

  #wrong() {
    const { kind, required, isObject } = this.#field;
    const text = this.input.value;
    if (this.input.validity.badInput || this.input.validity.stepMismatch) return ASKS.noNumber;
    if (required && !text.trim()) return ASKS.empty;
    try {
      this.value = read(this.#field, text, this.#isJson?.checked);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return ASKS.noJson;
    }
    if (!isObject || kind !== "json") return "";
    return this.value !== null && typeof this.value === "object" && !Array.isArray(this.value) ? "" : ASKS.noObject;
  }

  #made({ kind, choices, initial }) {
    if (kind === "choice") {
      const select = make("select");
      select.append(...(initial >= 0 ? [] : [new Option(ASKS.choose, "")]), ...choices.map(({ label }, at) => new Option(label, at)));
      return select;
    }
    if (kind === "line") return Object.assign(make("input"), { type: "text", autocomplete: "off" });
    if (kind === "number" || kind === "whole") return Object.assign(make("input"), { type: "number", step: kind === "whole" ? "1" : "any" });
    const area = Object.assign(make("textarea"), { rows: 1, spellcheck: kind !== "json", className: kind });
    if (kind !== "json") area.onkeydown = (event) => { // Enter works as in the box for questions
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      area.form.requestSubmit();
    };
    return area;
  }

  #help(text) {
    const help = Object.assign(make("p", text), { id: `${this.input.id}-help` });
    this.input.setAttribute("aria-describedby", help.id);
    this.node.append(help);
  }

  #jsonToo() {
    const label = make("label", "", "tick");
    this.#isJson = Object.assign(make("input"), { type: "checkbox" });
    label.append(this.#isJson, ASKS.isJson);
    this.node.append(label);
  }
}
