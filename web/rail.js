// The list of a caller's conversations, newest first. It comes from the gateway's list of streams, so it is
// there after a reload and in another browser. On a wide screen it is next to the page; on a phone it is a
// drawer over the page.
import { $ } from "./dom.js";
import { kept } from "./kept.js";
import { RAIL, when } from "./words.js";

const PAGE = 50; // streams in one request
const MOST_PAGES = 4; // most pages to request in one update of the list
const ENOUGH = 15;
const MOST_PAGES_OF_ONE = 40; // most pages to search for the streams of a conversation to delete
const AGAIN_MS = 4000; // poll interval while a conversation is being written
const phone = matchMedia("(max-width: 56rem)");

export class Rail {
  #page; #rows = []; #next = ""; #timer = 0; #looking = null;

  constructor(page) {
    this.#page = page;
    $("rail-open").onclick = () => this.open(true);
    $("rail-close").onclick = () => this.open(false);
    $("shade").onclick = () => this.open(false);
    $("older").onclick = () => this.#older();
    $("history").onclick = ({ target }) => {
      if (target.closest("a") && phone.matches) this.open(false, false);
      const asked = target.closest("button");
      if (asked) this.#ask(asked.dataset.key);
    };
    addEventListener("keydown", ({ key }) => { if (key === "Escape" && phone.matches && this.isOpen) this.open(false); });
    phone.onchange = () => this.#show(!phone.matches && kept.read("rail") !== false);
    phone.onchange();
  }

  get isOpen() { return document.body.dataset.rail === "open"; }
  get isDrawer() { return phone.matches; }

  open(is, moves = true) {
    if (!phone.matches) kept.write("rail", is);
    this.#show(is);
    if (moves) $(is ? "rail-close" : "rail-open").focus();
  }

  #show(is) {
    document.body.dataset.rail = is ? "open" : "closed";
    $("rail").inert = !is;
    $("rail-open").setAttribute("aria-expanded", String(is));
    $("desk").inert = is && phone.matches;
  }

  /** Load the newest streams. */
  async look() {
    clearTimeout(this.#timer);
    return (this.#looking ??= this.#look("").finally(() => { this.#looking = null; }));
  }

  async #look(before) {
    let [rows, next] = [before ? this.#rows : [], before];
    const enough = conversations(rows).length + ENOUGH;
    for (let pages = 0; pages < MOST_PAGES; pages++) {
      const found = await this.#page.call(this.#pageAt(next));
      if (!found) {
        if (!this.#rows.length) $("no-history").textContent = RAIL.none;
        return;
      }
      rows = [...rows, ...found.streams];
      next = found.next ?? "";
      if (!next || conversations(rows).length >= enough) break;
    }
    [this.#rows, this.#next] = [rows, next];
    this.draw();
    if (rows.slice(0, ENOUGH).some(isLive) && !document.hidden) this.#timer = setTimeout(() => this.look(), AGAIN_MS);
  }

  /** Ask whether to delete this conversation, and delete it. */
  #ask(key) {
    const { title, head } = conversations(this.#rows).find((one) => one.key === key);
    $("sure-which").textContent = named(title, head);
    const dialog = $("sure");
    dialog.returnValue = "";
    dialog.onclose = () => { if (dialog.returnValue === "delete") this.#delete(key); };
    dialog.showModal();
  }

  async #delete(key) {
    const ids = await this.#idsOf(key);
    const isShown = key === this.#page.conversation || this.#page.turns.some((turn) => turn.ids.some((id) => ids?.includes(id)));
    let isWhole = ids !== null;
    for (const id of ids ?? []) isWhole = Boolean(await this.#page.call(`stream/${id}?purge=true`, { method: "DELETE" })) && isWhole;
    if (isShown && isWhole) this.#page.begin();
    this.#page.refused(isWhole ? "" : RAIL.undeleted);
    await this.#looking; // a list that was requested before the deletion is out of date
    await this.look();
    if (isWhole && !isShown) $("new").focus();
  }

  /** The ids of a conversation's streams, the newest first; null if not all ids can be found. */
  async #idsOf(key) {
    let [rows, next] = [[], ""];
    for (let pages = 0; pages < MOST_PAGES_OF_ONE; pages++) {
      const found = await this.#page.call(this.#pageAt(next));
      if (!found) return null;
      rows = [...rows, ...found.streams];
      next = found.next ?? "";
      if (!next) return conversations(rows).find((one) => one.key === key)?.ids ?? [];
    }
    return null;
  }

  #pageAt(before) { return `streams?limit=${PAGE}${before ? `&before=${encodeURIComponent(before)}` : ""}`; }

  async #older() {
    await this.#look(this.#next);
    if ($("older").hidden) $("history").lastElementChild?.querySelector("a").focus();
  }

  draw() {
    const ids = new Set(this.#page.turns.flatMap((turn) => turn.ids));
    const found = conversations(this.#rows);
    const items = found.map((one) => row(one, one.ids.some((id) => ids.has(id)) || one.key === this.#page.conversation));
    const list = $("history");
    items.forEach((item, at) => { // an unchanged item stays, with the focus
      const old = list.children[at];
      if (!old) list.append(item);
      else if (!old.isEqualNode(item)) {
        const hadFocus = old.contains(document.activeElement);
        old.replaceWith(item);
        if (hadFocus) item.querySelector("a").focus();
      }
    });
    while (list.children.length > items.length) list.lastElementChild.remove();
    $("no-history").textContent = found.length ? "" : RAIL.empty;
    $("older").hidden = !this.#next;
  }
}

const isLive = ({ status }) => ["queued", "running"].includes(status);

/** The conversations made from the streams, the newest first: `{ key, title, head, ids }`. */
function conversations(rows) {
  const known = new Map(rows.map((one) => [one.id, one]));
  const keyOf = ({ id, metadata }, steps = 0) => {
    if (typeof metadata?.conversation === "string") return metadata.conversation;
    // streams of older versions of the page have no conversation name
    const previous = known.get(metadata?.previous);
    return previous && steps < rows.length ? keyOf(previous, steps + 1) : id;
  };
  const found = new Map();
  for (const one of rows) {
    const key = keyOf(one);
    const there = found.get(key) ?? { key, head: one, ids: [] };
    there.ids.push(one.id);
    // the title is the first question
    there.title = there.head.metadata?.title ?? one.metadata?.question ?? there.title;
    found.set(key, there);
  }
  return [...found.values()];
}

/** The displayed name of a conversation. */
const named = (title, { chain }) => (typeof title === "string" && title ? title : RAIL.elsewhere(chain));

function row({ key, head, title }, isShown) {
  const item = $("conversation").content.firstElementChild.cloneNode(true);
  const [link, button] = item.children, [name, about] = link.children;
  name.textContent = named(title, head);
  about.textContent = [isLive(head) ? RAIL.live : head.status === "waiting" ? RAIL.waiting : head.status === "failed" ? RAIL.failed : "",
    head.chain, when(head.created_at)].filter(Boolean).join(" · ");
  about.classList.toggle("busy", isLive(head));
  link.href = `#${head.id}`;
  if (isShown) link.setAttribute("aria-current", "page");
  button.dataset.key = key;
  button.setAttribute("aria-label", RAIL.delete(name.textContent));
  return item;
}
