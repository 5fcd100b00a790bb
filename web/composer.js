// The box in which a question is written: one row, which grows, and Send, in whose place Stop stands while an answer is written.
import { $ } from "./dom.js";

/** Let a text box grow with what is written in it, up to what its style allows. */
export function growing(box) {
  const fit = () => {
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
  };
  box.addEventListener("input", fit);
  return fit;
}

/** Enter sends, and Shift and Enter begin a line; not while an input method composes a word. */
export function sendsOnEnter(box) {
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    box.form.requestSubmit();
  });
}

export class Composer {
  #fit = growing($("box"));

  /** `page` is asked for `busy` and `live`, and told to `ask` and to `stop`. */
  constructor(page) {
    sendsOnEnter($("box"));
    $("box").addEventListener("input", () => this.show(page));
    $("form").onsubmit = (event) => {
      event.preventDefault();
      const question = $("box").value.trim();
      if (!question || page.busy) return;
      this.text = "";
      page.ask(question);
    };
    $("stop").onclick = ({ detail }) => { if (detail < 2) page.stop(); }; // the second click of two was meant for Send
    $("examples").onclick = ({ target }) => {
      const question = target.closest("button")?.querySelector("em").textContent;
      if (question) page.ask(question);
    };
  }

  get text() { return $("box").value; }
  set text(text) {
    $("box").value = text;
    this.#fit();
  }

  /** One answer at a time; but who is cut off from it may ask anew. */
  show({ busy, live, last }) {
    const stops = live && (busy || !this.text.trim());
    if ($("stop").hidden !== stops) return;
    const from = document.activeElement;
    $("stop").hidden = !stops;
    $("send").hidden = stops;
    if (from === $("stop")) last?.focus(); // not the box: on a phone that would open the keyboard
    else if (from === $("send")) $("stop").focus();
  }
}
