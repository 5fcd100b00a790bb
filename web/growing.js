// A Markdown text that grows, as nodes. A complete block is never changed again, so a selection in it is
// kept. Only the last, open block is drawn again, and only its changed nodes are replaced. A drawing takes a
// limited time: it adds a limited amount of new text, and closes an open block that is too long.
import { Code } from "./code.js";
import { blocks, render } from "./markdown.js";

const MOST_NEW = 8192; // new characters that one drawing adds
const MOST_OPEN = 8192; // characters of an open block; a longer one is closed if possible
const MOST_WHOLE = 200_000; // characters of a text with references that is redrawn at its end
const HEADINGS = "h1, h2, h3, h4, h5, h6";
const SIGNS = /(?:^|\n)(?:#{1,6}[ \t]*|[`~]{1,3}|\|)$/; // a line with only the sign of its kind so far
const FENCE = /^\n*(`{3,}(?=[^`\n]*\n)|~{3,}(?=[^\n]*\n))([^\n]*)\n/;

export class Growing {
  // #fixed: for each complete block, the end of its text and the number of nodes up to there
  #node; #taken = ""; #fixed = []; #over = 0;
  #defs = ""; #head = ""; // reference definitions so far, and the head of a table that was closed early
  #fence = null; #isDone = false;

  constructor(node) { this.#node = node; }

  /** Draw the new part of `text`; returns whether all of it is drawn now. `isWhole`: no more text comes. */
  draw(given, isWhole) {
    const text = given.includes("\r") ? given.replace(/\r\n?/g, "\n") : given;
    if (!text.startsWith(this.#taken)) this.#back(text);
    const held = isWhole ? 0 : SIGNS.exec(text.slice(-10))?.[0].trimStart().length ?? 0;
    const all = Math.max(text.length - held, this.#taken.length);
    if (all === this.#taken.length && (this.#isDone || !isWhole)) return true;
    const until = Math.min(all, this.#taken.length + MOST_NEW);
    this.#taken = text.slice(0, until);
    const isLast = until === all;
    while (this.#step(isWhole && isLast));
    if (isLast && isWhole) {
      this.#isDone = true;
      // a reference can be defined after its use
      if (this.#defs && text.length <= MOST_WHOLE) this.#morph(0, render(blocks(text), text));
    }
    return isLast;
  }

  /** The text differs from the drawn text: keep the blocks that are equal. */
  #back(text) {
    let same = 0;
    while (same < this.#taken.length && text[same] === this.#taken[same]) same++;
    while (this.#fixed.length && this.#fixed.at(-1).end > same) this.#fixed.pop();
    const end = this.#fixed.at(-1)?.end ?? 0;
    [this.#taken, this.#over, this.#fence, this.#head, this.#defs, this.#isDone] = [text.slice(0, end), end, null, "", "", false];
  }

  get #count() { return this.#fixed.at(-1)?.nodes ?? 0; }

  #cut(count) { while (this.#node.childNodes.length > count) this.#node.lastChild.remove(); }

  #close(length, nodes) {
    this.#over += length;
    this.#fixed.push({ end: this.#over, nodes });
  }

  /** Draw the open text; returns whether a block is complete and more text follows it. */
  #step(isWhole) {
    const open = this.#taken.slice(this.#over);
    if (this.#fence || FENCE.test(open)) return this.#code(open, isWhole);
    const lead = this.#lead(open);
    const all = blocks(lead + open);
    const before = this.#count;
    if (!all || all.reduce((sum, { raw }) => sum + raw.length, 0) !== lead.length + open.length) {
      // the text is nested too deeply, or its blocks cannot be separated
      this.#morph(before, render(all, open));
      return false;
    }
    let at = -lead.length;
    const ends = all.map(({ raw }) => (at += raw.length));
    const first = ends.findIndex((end) => end > 0);
    const behind = isWhole ? all.length : this.#closed(all, ends, first, open);
    const over = all.slice(first < 0 ? all.length : first, behind), rest = all.slice(Math.max(behind, first));
    const length = isWhole ? open.length : over.length ? ends[behind - 1] : 0;
    if (!length && open.length >= MOST_OPEN && this.#closeEarly(open, lead, all)) return this.#over < this.#taken.length;
    const closed = render(over, open.slice(0, length));
    const count = before + closed.childNodes.length;
    closed.append(rest.length ? render(rest, open.slice(length)) : "");
    this.#morph(before, closed);
    if (!length) return false;
    this.#defs += over.filter(({ type }) => type === "def").map(({ raw }) => `${raw.trim()}\n`).join("");
    this.#head = "";
    this.#close(length, count);
    return this.#over < this.#taken.length;
  }

  /** Keep screen readers from a jump in levels: a heading's level is at most one below the heading before it,
   * whatever its size. The page's own heading is the first level. */
  #level(from, nodes) {
    let at = this.#node.childNodes[from - 1] ?? null;
    while (at && !at.matches?.(HEADINGS)) at = at.previousSibling;
    let last = at ? Number(at.ariaLevel ?? at.nodeName[1]) : 1;
    for (const one of nodes.querySelectorAll(HEADINGS)) {
      const own = Number(one.nodeName[1]);
      last = Math.max(2, Math.min(own, last + 1));
      if (last !== own) one.ariaLevel = String(last);
    }
  }

  /** The text that must precede the open text, so that it is parsed correctly. */
  #lead(open) { return (this.#defs && `${this.#defs}\n`) + (/^\s*\n/.test(open) ? "" : this.#head); }

  /** The number of complete blocks: those before the last block whose first line is complete. A fence also
   * completes the blocks before it, because a fence grows by itself. */
  #closed(all, ends, first, open) {
    let last = all.length - 1;
    while (last > first && (all[last].type === "space" || open.indexOf("\n", Math.max(0, ends[last - 1])) < 0)) last--;
    const fence = all.findIndex(({ type, raw }, at) => at > first && at <= last && type === "code" && /^[`~]/.test(raw));
    return fence > 0 ? fence : last > first ? last : first;
  }

  /** Close a long open block after its last line; but not inside a fence, because its end would begin another
   * fence. */
  #closeEarly(open, lead, all) {
    const length = open.lastIndexOf("\n") + 1;
    const fences = open.match(/^[\s>]*(?:```|~~~)/gm)?.length ?? 0;
    const tokens = !length || fences % 2 ? null : length === open.length ? all : blocks(lead + open.slice(0, length));
    if (!tokens) return false;
    if (all.at(-1).type === "table" && !this.#head) this.#head = open.split("\n", 2).map((line) => `${line}\n`).join("");
    const closed = render(tokens, open.slice(0, length));
    const count = this.#count + closed.childNodes.length;
    this.#morph(this.#count, closed);
    this.#close(length, count);
    return true;
  }

  /** A fence without indentation: only the new code is added to it. */
  #code(open, isWhole) {
    if (!this.#fence) {
      const [head, sign, language] = FENCE.exec(open);
      const code = new Code(language);
      this.#cut(this.#count);
      this.#node.append(code.node);
      this.#fence = { code, at: head.length, end: new RegExp(`^ {0,3}${sign[0]}{${sign.length},}[ \\t]*(?:\\n|$)`, "gm") };
    }
    const { code, at, end } = this.#fence;
    end.lastIndex = open.lastIndexOf("\n", at - 1) + 1;
    const found = end.exec(open);
    const isOver = found !== null && (found[0].endsWith("\n") || isWhole);
    const line = open.slice(open.lastIndexOf("\n") + 1);
    // this line may become the end of the fence
    const until = found ? found.index - 1 : !isWhole && /^[ \t]*[`~]*[ \t]*$/.test(line) ? open.length - line.length - 1 : open.length;
    const body = open.slice(at, Math.max(at, until));
    this.#fence.at = at + body.length;
    if (isOver || isWhole) {
      code.add(body.replace(/\n$/, ""));
      code.finish();
      this.#fence = null;
      this.#close(isOver ? found.index + found[0].length : open.length, this.#count + 1);
      return this.#over < this.#taken.length;
    }
    code.add(body);
    return false;
  }

  #morph(from, nodes) {
    this.#level(from, nodes);
    grow(this.#node, nodes, this.#node.childNodes[from] ?? null);
  }
}

/** Make the children of `node`, from `at` on, equal to `wanted`. Equal children keep their present nodes. */
function grow(node, wanted, at = node.firstChild) {
  for (const next of [...wanted.childNodes]) {
    const after = at?.nextSibling ?? null;
    if (!at) node.append(next);
    else if (at.nodeType === Node.TEXT_NODE && next.nodeType === Node.TEXT_NODE) {
      if (next.data !== at.data) {
        if (next.data.startsWith(at.data)) at.appendData(next.data.slice(at.data.length));
        else at.data = next.data;
      }
    } else if (isLike(at, next)) grow(at, next);
    else at.replaceWith(next);
    at = after;
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

const isLike = (one, other) => one.nodeName === other.nodeName && one.attributes?.length === other.attributes?.length
  && [...(one.attributes ?? [])].every(({ name, value }) => other.getAttribute(name) === value);
