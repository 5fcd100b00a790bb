// A code block: its language, a copy button, and its coloured text. It can grow without being rebuilt.
import { button, make } from "./dom.js";
import { pieces } from "./highlight.js";

const LONGEST_LANGUAGE = 20; // characters
const MOST_PENDING = 10_000; // characters of a string or comment that does not end

export class Code {
  #language; #code = make("code"); #pending = new Text(); #held = "";

  constructor(language) {
    this.#language = (language.trim().split(/[\s{,]/)[0] ?? "").slice(0, LONGEST_LANGUAGE);
    this.node = make("div", "", "code");
    this.node.dir = "ltr";
    const head = make("div", "", "code-head");
    const pre = Object.assign(make("pre"), { tabIndex: 0 }); // so that the keyboard can scroll it
    pre.setAttribute("role", "group");
    pre.setAttribute("aria-label", this.#language ? `Code, ${this.#language}` : "Code");
    head.append(make("span", this.#language || "code"), button("Copy code", "copy-code", "copy"));
    this.#code.append(this.#pending);
    pre.append(this.#code);
    this.node.append(head, pre);
  }

  /** Add text. Complete lines get their colours and are not changed again. */
  add(text) {
    this.#held += text;
    const lines = this.#held.lastIndexOf("\n") + 1;
    this.#colour(this.#held.slice(0, lines), this.#held.length > MOST_PENDING);
    this.#pending.data = this.#held;
  }

  /** Called when no more text will come. */
  finish() {
    this.#colour(this.#held, true);
    this.#pending.data = this.#held;
  }

  #colour(text, isWhole) {
    const found = pieces(text, this.#language, isWhole).map(([kind, piece]) => {
      this.#held = this.#held.slice(piece.length);
      return kind ? make("span", piece, `t-${kind}`) : new Text(piece);
    });
    this.#pending.before(...found);
  }
}

/** A code block whose text is complete. */
export function codeBlock(language, text) {
  const code = new Code(language);
  code.add(text);
  code.finish();
  return code.node;
}
