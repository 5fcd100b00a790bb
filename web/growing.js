// A Markdown text that grows, as nodes. A block that is over is never touched again, so what is selected in it stays
// selected; only the last open block is drawn anew, and of it only what differs. A drawing takes a bounded time: it takes
// up so much new text at most, and a block that does not end is closed where it is too long.
import { Code } from "./code.js";
import { blocks, render } from "./markdown.js";

const MOST_NEW = 8192; // characters that one drawing takes up
const MOST_OPEN = 8192; // characters of a block that is drawn anew, where it can be closed
const MOST_WHOLE = 200_000; // characters of a text that is drawn whole at its end, where it has references
const HEADINGS = "h1, h2, h3, h4, h5, h6";
const SIGNS = /(?:^|\n)(?:#{1,6}[ \t]*|[`~]{1,3}|\|)$/; // a line that has nothing yet but the sign of what it will be
const FENCE = /^\n*(`{3,}(?=[^`\n]*\n)|~{3,}(?=[^\n]*\n))([^\n]*)\n/;

export class Growing {
  #node; #taken = ""; #fixed = []; #over = 0; // #fixed: of each block that is over, where its text ends, and how many nodes there are then
  #defs = ""; #head = ""; // reference definitions so far, and the head of a table that was closed in its middle
  #fence = null; #isDone = false;

  constructor(node) { this.#node = node; }

  /** Draw what is new of `text`; answers whether all of it stands now. `isWhole`: nothing comes any more. */
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
      if (this.#defs && text.length <= MOST_WHOLE) this.#morph(0, render(blocks(text), text)); // what was named later than it was used
    }
    return isLast;
  }

  /** The text is another than was shown: keep the blocks that are the same. */
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

  /** Draw the open text; answers whether a block is over, and there is more behind it. */
  #step(isWhole) {
    const open = this.#taken.slice(this.#over);
    if (this.#fence || FENCE.test(open)) return this.#code(open, isWhole);
    const lead = this.#lead(open);
    const all = blocks(lead + open);
    const before = this.#count;
    if (!all || all.reduce((sum, { raw }) => sum + raw.length, 0) !== lead.length + open.length) {
      this.#morph(before, render(all, open)); // nested too deeply, or not told apart
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

  /** No heading is told as more than one level below the one before it, whatever its size: the page's own is the first. */
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

  /** What has to stand before the open text for it to be read rightly. */
  #lead(open) { return (this.#defs && `${this.#defs}\n`) + (/^\s*\n/.test(open) ? "" : this.#head); }

  /** How many of the blocks are over: those before the last one whose first line is complete. A fence ends them too, as it grows by itself. */
  #closed(all, ends, first, open) {
    let last = all.length - 1;
    while (last > first && (all[last].type === "space" || open.indexOf("\n", Math.max(0, ends[last - 1])) < 0)) last--;
    const fence = all.findIndex(({ type, raw }, at) => at > first && at <= last && type === "code" && /^[`~]/.test(raw));
    return fence > 0 ? fence : last > first ? last : first;
  }

  /** A block that does not end is closed behind its last line; not within a fence, whose end would begin another. */
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

  /** A fence at the text's own margin: its code grows by what is new. */
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
    const until = found ? found.index - 1 : !isWhole && /^[ \t]*[`~]*[ \t]*$/.test(line) ? open.length - line.length - 1 : open.length; // it may become the end
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

/** Make the children of `node` from `at` on be those of `wanted`; what is the same stays the very node that it was. */
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
