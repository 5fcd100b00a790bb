// Show which chain and which model answer, and describe them.
import { $ } from "./dom.js";
import { CHAIN, MODEL, MODEL_IS } from "./words.js";

const SCRIPTED = "demo"; // this chain calls no model
const MODEL_LOOKS = 120; // polls, one a second, while the model loads
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class About {
  model = ""; #page; #chains = new Map(); #wanted = ""; #isWatching = false;

  constructor(page) {
    this.#page = page;
    $("chain").onchange = () => this.draw();
  }

  get chain() { return $("chain").value; }
  set chain(name) { // the list of chains may come later
    this.#wanted = name;
    if (this.#chains.has(name)) $("chain").value = name;
    this.draw();
  }

  async list() {
    const answer = await this.#page.call("chains");
    if (!answer) return;
    this.#chains = new Map(answer.chains.map((one) => [one.name, one]));
    const usual = answer.default ?? "chat";
    const was = this.#chains.has(this.#wanted) ? this.#wanted : "";
    $("chain").replaceChildren(...[...this.#chains.keys()].map((name) => new Option(name, name, name === usual, name === (was || usual))));
    $("chains").hidden = this.#chains.size < 2;
    this.draw();
  }

  /** Poll the gateway until its model is ready, or until it is known that no model will be ready. */
  async watch() {
    if (this.#isWatching) return;
    this.#isWatching = true;
    for (let looks = 0; looks < MODEL_LOOKS; looks++) {
      this.model = (await this.#page.call("health"))?.model ?? "";
      this.draw();
      this.#page.last?.changed();
      if (this.model !== "loading") break;
      await pause(1000);
    }
    this.#isWatching = false;
  }

  draw() {
    const node = $("model");
    const is = this.model && this.chain === SCRIPTED ? "scripted" : this.model;
    const isFine = ["ready", "configured", "scripted"].includes(is);
    node.textContent = MODEL[is] ?? MODEL.away;
    node.className = is === "loading" ? "busy" : isFine ? "" : "warn";
    node.hidden = false;
    const chain = this.#chains.get(this.chain);
    $("about-chain").textContent = chain ? CHAIN(chain) : CHAIN.unknown;
    for (const { dataset, lastElementChild } of $("examples").querySelectorAll("button")) { // a script can say only what it says
      lastElementChild.textContent = this.chain === SCRIPTED ? dataset.scripted : dataset.ask;
    }
    $("about-model").textContent = MODEL_IS[is] ?? MODEL_IS.away;
  }
}
