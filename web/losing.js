// A bar of actions for an answer that is being written: cut its connection, read it on a second device, kill
// its worker. The bar then shows the effect.
import { $ } from "./dom.js";
import { LOSING } from "./words.js";

export class Losing {
  #answer = null; #parts; #timer = 0; #said = null;

  constructor(page) {
    const bar = $("losing");
    this.bar = bar;
    this.#parts = Object.fromEntries([...bar.querySelectorAll("[class]")].map((node) => [node.classList[0], node]));
    const { cut, other, kill } = this.#parts;
    cut.onclick = () => this.#answer?.reader.cut();
    other.onclick = () => this.#answer?.openSecond();
    kill.onclick = () => this.#answer?.kill();
    this.page = page;
  }

  /** Show the actions that are possible for this answer now; hide the bar if the answer is not being written.
   */
  show(answer) {
    if (answer !== this.#answer) [this.#answer, this.#said] = [answer, null];
    const isLive = Boolean(answer?.reader.live && answer.id);
    const hadFocus = !isLive && this.bar.contains(document.activeElement);
    this.bar.hidden = !isLive;
    if (hadFocus) answer?.focus();
    clearTimeout(this.#timer);
    if (!isLive) return;
    const { cut, other, kill, lost, countdown } = this.#parts;
    const { reader } = answer;
    // a button with `disabled` would lose the focus
    cut.setAttribute("aria-disabled", String(reader.state !== "open"));
    other.setAttribute("aria-disabled", String(answer.hasSecond));
    kill.hidden = !this.page.own;
    kill.setAttribute("aria-disabled", String(!answer.canKill));
    const isDead = answer.isDead && !reader.isUnanswered;
    const left = isDead ? Math.ceil((answer.takenOverBy - performance.now()) / 1000) : 0;
    const words = reader.isUnanswered ? LOSING.silent : isDead ? LOSING.dead : reader.state === "away" ? LOSING.cut
      : answer.wasKilled ? LOSING.taken : reader.cuts || reader.resumes ? LOSING.back
        : answer.hasSecond ? LOSING.second : answer.hadSecond ? "" : LOSING.why;
    if (this.#said !== words) lost.textContent = this.#said = words;
    lost.className = `lost ${answer.isDead || reader.isUnanswered || reader.state === "away" ? "warn" : ""}`;
    countdown.hidden = !isDead;
    if (!isDead) return;
    countdown.textContent = left > 0 ? LOSING.within(left) : LOSING.now;
    this.#timer = setTimeout(() => this.show(this.#answer), 250);
  }
}
