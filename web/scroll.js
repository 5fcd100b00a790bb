// Scrolls the window so that it follows the end of the conversation. Only a person's scrolling turns this on
// or off. If the window is too low to keep the composer visible, the window follows the end of the answer,
// and the composer is below it.
const NEAR = 60; // pixels: nearer than this, the window counts as at the end

export class Follower {
  #turns; #dock; #jump; #isLive; #follows = true; #was = 0; #isUntouched = true;

  /** `isLive` returns whether an answer is being written. */
  constructor(turns, dock, jump, isLive) {
    [this.#turns, this.#dock, this.#jump, this.#isLive] = [turns, dock, jump, isLive];
    jump.onclick = () => {
      this.follow();
      turns.lastElementChild?.querySelector("article")?.focus({ preventScroll: true });
    };
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // After a reload the page shows the end of the conversation while it draws, until the person scrolls or
    // presses a key.
    for (const name of ["wheel", "touchstart", "pointerdown", "keydown"])
      addEventListener(name, () => { this.#isUntouched = false; }, { passive: true, once: true });
    const watch = new ResizeObserver(() => this.#grown());
    for (const node of [turns, dock, document.documentElement]) watch.observe(node);
  }

  /** Scroll to the end, and stay at the end. */
  follow() {
    this.#follows = true;
    this.#grown(true);
  }

  get #end() {
    const most = document.documentElement.scrollHeight - innerHeight;
    if (getComputedStyle(this.#dock).position === "sticky") return most;
    return Math.min(most, Math.max(0, this.#turns.getBoundingClientRect().bottom + scrollY - innerHeight + 8));
  }

  #scrolled() {
    const isAtEnd = this.#end - scrollY < NEAR;
    if (isAtEnd) this.#follows = true;
    // New text never scrolls the window up. Less text does, if the earlier position no longer exists.
    else if (scrollY < this.#was - 1 && this.#was <= document.documentElement.scrollHeight - innerHeight) this.#follows = false;
    this.#was = scrollY;
    this.#jump.hidden = isAtEnd || !this.#turns.children.length;
  }

  #grown(isAsked = false) {
    if (this.#follows && (isAsked || this.#isUntouched || this.#isLive())) scrollTo(0, this.#end);
    this.#scrolled();
  }
}
