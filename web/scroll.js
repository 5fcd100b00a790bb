// Whether the window follows the end of the conversation. Only a person's scrolling changes that; on a window so low that
// the composer is not kept in sight, the end is that of the answer, and the composer is below it.
const NEAR = 60; // pixels from the end, within which the end is looked at

export class Follower {
  #turns; #dock; #jump; #isLive; #follows = true; #was = 0; #height = 0;

  /** `isLive` says whether something is being written. */
  constructor(turns, dock, jump, isLive) {
    [this.#turns, this.#dock, this.#jump, this.#isLive] = [turns, dock, jump, isLive];
    jump.onclick = () => {
      this.follow();
      turns.lastElementChild?.querySelector("article")?.focus({ preventScroll: true });
    };
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
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
    const height = document.documentElement.scrollHeight;
    if (isAtEnd) this.#follows = true;
    else if (scrollY < this.#was - 1 && height >= this.#height) this.#follows = false; // growth never scrolls up, and a page that shrinks does
    [this.#was, this.#height] = [scrollY, height];
    this.#jump.hidden = isAtEnd || !this.#turns.children.length;
  }

  #grown(isAsked = false) {
    if (this.#follows && (isAsked || this.#isLive())) scrollTo(0, this.#end);
    this.#scrolled();
  }
}
