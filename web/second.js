// A second device: another connection, which reads the same answer from its first event on, beside the first one's.
import { fill, make, put } from "./dom.js";
import { Reader } from "./reader.js";
import { Pace, Said } from "./said.js";
import { secondArrival, STATES, told } from "./words.js";

const NEAR = 60; // pixels from the end, within which the end is looked at

export class Second {
  #answer; #parts; #reader; #said; #pace = new Pace((began) => this.#draw(began));

  constructor(answer) {
    this.#answer = answer;
    this.#parts = answer.parts;
    const id = answer.id;
    this.#reader = new Reader(answer.page.options, (gateway, signal) => gateway.follow(id, "", { signal }), () => this.changed());
    this.#parts["second-said"].replaceChildren();
    this.#said = new Said(this.#parts["second-said"], false);
    this.#parts["second-cut"].onclick = () => this.#reader.cut();
    this.#parts["second-close"].onclick = () => answer.closeSecond();
    this.#parts.second.hidden = false;
    this.#reader.run();
  }

  wake(isOnline) { if (this.#reader.wake(isOnline)) this.#reader.run(); }

  close() {
    this.#reader.close();
    this.#pace.close();
    this.#parts.second.hidden = true;
  }

  /** There is more to draw here, or to compare with. */
  changed() { this.#pace.changed(); }

  #draw(began) {
    const reader = this.#reader, frame = this.#parts["second-said"];
    const isAtEnd = frame.scrollHeight - frame.clientHeight - frame.scrollTop < NEAR;
    const isAll = this.#said.draw(reader, began);
    if (isAtEnd) frame.scrollTop = frame.scrollHeight;
    const first = this.#answer.reader.events;
    const isSame = reader.events.every((event, at) => at >= first.length || event === first[at]);
    put(this.#parts["second-state"], reader.error ? told(reader.error)[0] : reader.state === "away" ? "Cut, coming back" : STATES[reader.stream.ended || "running"]);
    this.#parts["second-cut"].setAttribute("aria-disabled", String(reader.state !== "open"));
    fill(this.#parts["second-trail"], secondArrival(reader, isSame).map((words) => make("li", words)));
    return isAll;
  }
}
