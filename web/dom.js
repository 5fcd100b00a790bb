// Small helpers that make and change elements of the page.
export const $ = (id) => document.getElementById(id);
export const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, ...(name && { className: name }) });

/** Set a text. The same text is not set again, because a screen reader would read it again. */
export const put = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
  node.hidden = !text;
};

/** A button with one of the pictures in index.html before its words. */
export function button(text, name = "", picture = "") {
  const one = Object.assign(make("button", text, name), { type: "button" });
  if (picture) one.prepend(icon(picture));
  return one;
}

function icon(name) {
  const [svg, use] = ["svg", "use"].map((tag) => document.createElementNS(document.querySelector("svg").namespaceURI, tag));
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Copy a text, and show the success on the button for a short time. */
export async function copy(text, one) {
  const words = one.lastChild;
  const was = (one.dataset.says ??= words.data);
  words.data = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not allowed");
  setTimeout(() => { words.data = was; }, 2000);
}

/** Update the items of a list. Only changed items are replaced. So an open item stays open, and a screen
 * reader reads nothing twice. */
export function fill(list, items) {
  list.hidden = !items.length;
  items.forEach((item, at) => {
    const old = list.children[at];
    if (!old) list.append(item);
    else if (old.textContent !== item.textContent || old.className !== item.className) {
      if (old.querySelector("details")?.open) item.querySelector("details").open = true;
      old.replaceWith(item);
    }
  });
  while (list.children.length > items.length) list.lastElementChild.remove();
}
