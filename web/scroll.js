// Whether the window follows the end of the conversation. Only a person's scrolling changes that; on a window so low that
// the composer is not kept in sight, the end is that of the answer, and the composer is below it.
const NEAR = 60; // pixels from the end, within which the end is looked at

export class Follower {
  #turns; #dock; #jump; #isLive; #follows = true; #was = 0; #isUntouched = true;

  /** `isLive` says whether something is being written. */
  constructor(turns, dock, jump, isLive) {
    [this.#turns, this.#dock, this.#jump, this.#isLive] = [turns, dock, jump, isLive];
    jump.onclick = () => {
      this.follow();
      turns.lastElementChild?.querySelector("article")?.focus({ preventScroll: true });
    };
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // A page that was loaded anew shows the end of what it draws, until somebody does something.
    for (const name of ["wheel", "touchstart", "pointerdown", "keydown"])
      addEventListener(name, () => { this.#isUntouched = false; }, { passive: true, once: true });
    const watch = new ResizeObserver(() => this.#grown());
    for (const node of [turns, dock, document.documentElement]) watch.observe(node);
  }

  /** Go to the end, and stay there. */
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
    // Growth never scrolls up; what shrinks does, where the place of before is no more.
    else if (scrollY < this.#was - 1 && this.#was <= document.documentElement.scrollHeight - innerHeight) this.#follows = false;
    this.#was = scrollY;
    this.#jump.hidden = isAtEnd || !this.#turns.children.length;
  }

  #grown(isAsked = false) {
    if (this.#follows && (isAsked || this.#isUntouched || this.#isLive())) scrollTo(0, this.#end);
    this.#scrolled();
  }
}
