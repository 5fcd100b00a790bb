// Markdown to nodes. What a model says is not trusted: its markup is shown as text, and of what marked makes of the
// rest only the elements of a short list pass DOMPurify; pictures, which would be asked for elsewhere, are links.
import purify from "./vendor/purify.js";
import { Marked } from "./vendor/marked.js";

const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});
const ALLOWED = {
  ALLOWED_TAGS: ["a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["href", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

// A text that is nested thousands of times overflows the stack of the parser, or comes out of it without a word.
const parsed = (text) => {
  try {
    return purify.sanitize(marked.parse(text), ALLOWED);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return null;
  }
};

/** The nodes of a Markdown text, to be put into a page; of one that is nested too deeply, the text as it is. */
export const render = (text) => {
  const made = parsed(text);
  if (made?.textContent.trim() || !text.trim()) return made;
  const plain = document.createElement("p");
  plain.textContent = text;
  const nodes = document.createDocumentFragment();
  nodes.append(plain);
  return nodes;
};
