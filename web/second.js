// A second device: a second connection that reads the same answer from its first event. It is shown next to
// the first.
import { fill, make, put } from "./dom.js";
import { Reader } from "./reader.js";
import { secondArrival, STATES, told } from "./words.js";

export class Second {
  #answer; #parts; #reader;

  constructor(answer) {
    this.#answer = answer;
    this.#parts = answer.parts;
    const id = answer.id;
    this.#reader = new Reader(answer.page.options, (gateway, signal) => gateway.follow(id, "", { signal }), () => this.#draw());
    this.#parts["second-cut"].onclick = () => this.#reader.cut();
    this.#parts["second-close"].onclick = () => answer.closeSecond();
    this.#parts.second.hidden = false;
    this.#reader.run();
  }

  wake(isOnline) { if (this.#reader.wake(isOnline)) this.#reader.run(); }

  close() {
    this.#reader.close();
    this.#parts.second.hidden = true;
  }

  #draw() {
    const reader = this.#reader;
    if (!reader) return; // called within the constructor, before `reader` is set
    const pre = this.#parts.second.querySelector("pre");
    const text = pre.firstChild ?? pre.appendChild(new Text());
    const said = reader.stream.stages.map((stage) => stage.text).filter(Boolean).join("\n\n");
    if (said.startsWith(text.data)) text.appendData(said.slice(text.data.length));
    else text.data = said;
    pre.scrollTop = pre.scrollHeight;
    const first = this.#answer.reader.events;
    const isSame = reader.events.every((event, at) => at >= first.length || event === first[at]);
    put(this.#parts["second-state"], reader.error ? told(reader.error)[0] : reader.state === "away" ? "Cut, coming back" : STATES[reader.stream.ended || "running"]);
    this.#parts["second-cut"].setAttribute("aria-disabled", String(reader.state !== "open"));
    fill(this.#parts["second-trail"], secondArrival(reader, isSame).map((words) => make("li", words)));
  }
}
