// The box in which a question is written. It has one row and grows. While an answer is written, the Stop
// button replaces the Send button.
import { $ } from "./dom.js";

/** Let a text box grow with its text, up to the limit in its style. */
export function growing(box) {
  const fit = () => {
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
  };
  box.addEventListener("input", fit);
  return fit;
}

/** Enter sends, and Shift+Enter begins a new line; neither applies while an input method composes a word. */
export function sendsOnEnter(box) {
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    box.form.requestSubmit();
  });
}

export class Composer {
  #fit = growing($("box"));

  /** `page` has `busy` and `live`, which are read, and `ask` and `stop`, which are called. */
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
    // the second click of a double click was meant for Send
    $("stop").onclick = ({ detail }) => { if (detail < 2) page.stop(); };
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

  /** Allow one answer at a time. But a person whose connection is cut may ask again. */
  show({ busy, live, last }) {
    const stops = live && (busy || !this.text.trim());
    if ($("stop").hidden !== stops) return;
    const from = document.activeElement;
    $("stop").hidden = !stops;
    $("send").hidden = stops;
    if (from === $("stop")) last?.focus(); // not the box: focus there would open the keyboard of a phone
    else if (from === $("send")) $("stop").focus();
  }
}
