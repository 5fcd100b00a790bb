// What a stream has said, drawn as it grows: each stage's text as a block of its own. Whoever reads the stream, on the first
// device or the second, draws it by this.
import { result } from "./details.js";
import { copy, make, put } from "./dom.js";
import { Growing } from "./growing.js";

const DRAW_MS = 50; // between two drawings
const DRAWING_MS = 16; // after which the rest of the text is left to the next one

/** The stages that have said something, in their order; where none has, what the chain has come to. */
export function spoken(stream) {
  const found = stream.stages.filter(({ text }) => text);
  const made = found.length ? "" : result(stream);
  return made ? [{ name: "", run: 1, text: made }] : found;
}

/** Calls `draw` when something has changed, but not too often; and again as long as it answers that not all stands. */
export class Pace {
  #draw; #timer = 0; #isStale = false;

  constructor(draw) { this.#draw = draw; }

  changed() {
    this.#isStale = true;
    this.#timer ||= setTimeout(() => this.#run(), DRAW_MS);
  }

  close() { clearTimeout(this.#timer); }

  #run() {
    this.#isStale = false;
    const isAll = this.#draw(performance.now());
    this.#isStale ||= !isAll;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.#isStale) this.#run();
    }, isAll ? DRAW_MS : 0);
  }
}

export class Said {
  #node; #isTold; #texts = [];

  /** `isTold`: what is drawn into `node` is read aloud to who cannot see it. */
  constructor(node, isTold) {
    [this.#node, this.#isTold] = [node, isTold];
    node.onclick = ({ target }) => {
      const one = target.closest(".copy-code");
      if (one) copy(one.closest(".code").querySelector("pre").textContent.replace(/\n$/, ""), one);
    };
  }

  /** Draw what this reader has, in a bounded time since `began`; answers whether all of it stands. */
  draw(reader, began) {
    const found = spoken(reader.stream);
    const wanted = Math.max(1, found.length);
    while (this.#texts.length > wanted) this.#texts.pop().node.remove();
    let isAll = true;
    for (let at = 0; at < wanted && (isAll = performance.now() - began < DRAWING_MS || at === 0); at++) {
      const one = (this.#texts[at] ??= this.#block());
      const { name = "", run = 1, text = "", state = "" } = found[at] ?? {};
      const isOver = !reader.live || state === "finished" || at < found.length - 1;
      put(one.label, found.length > 1 ? (run > 1 ? `${name} ${run}` : name) : "");
      while (!(isAll = one.growing.draw(text, isOver)) && performance.now() - began < DRAWING_MS);
      const grows = reader.live && reader.state === "open" && reader.stream.stages.length > 0 && at === wanted - 1;
      one.text.classList.toggle("growing", grows);
      one.text.setAttribute("aria-busy", String(reader.live)); // read aloud when it is whole
      if (!isAll) break;
    }
    return isAll;
  }

  #block() {
    const [node, label, text] = [make("section"), make("p", "", "stage-name"), make("div", "", "answer")];
    if (this.#isTold) text.setAttribute("aria-live", "polite");
    node.append(label, text);
    this.#node.append(node);
    return { node, label, text, growing: new Growing(text) };
  }
}
