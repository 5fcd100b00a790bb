// Markdown to nodes. What a model says is not trusted: its markup is shown as text, and of what marked makes of the
// rest only the elements of a short list pass DOMPurify; pictures, which would be asked for elsewhere, are links.
import { codeBlock } from "./code.js";
import { make } from "./dom.js";
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
  ALLOWED_ATTR: ["href", "start", "align", "class"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

purify.addHook("uponSanitizeAttribute", (node, data) => {
  if (data.attrName === "class") data.keepAttr = node.nodeName === "CODE" && /^language-[\w+#.-]{1,20}$/.test(data.attrValue);
});
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

// A text that is nested thousands of times overflows the stack of the parser, or comes out of it without a word.
const guarded = (work) => {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return null;
  }
};

const TOO_DEEP = /(?:(?:>|[-*+] )[ \t]*){100}/; // quotes or lists within each other, for which the parser takes seconds

/** The blocks of a Markdown text, each with its text as `raw`; null for one that is nested too deeply. */
export const blocks = (text) => (TOO_DEEP.test(text) ? null : guarded(() => marked.lexer(text)));

/** The nodes of some blocks; of what is nested too deeply, its text as it is. */
export function render(tokens, text) {
  const nodes = tokens && guarded(() => purify.sanitize(marked.parser(tokens), ALLOWED));
  if (!nodes || (!nodes.textContent.trim() && tokens.some(({ type }) => !["space", "def", "hr", "code"].includes(type)) && text.trim())) {
    const plain = document.createDocumentFragment();
    plain.append(make("p", text));
    return directed(plain);
  }
  for (const node of [...nodes.childNodes]) if (node.nodeType === Node.TEXT_NODE && !node.data.trim()) node.remove();
  for (const pre of nodes.querySelectorAll("pre")) {
    const language = pre.firstElementChild?.className.replace("language-", "") ?? "";
    pre.replaceWith(codeBlock(language, pre.textContent.replace(/\n$/, "")));
  }
  for (const table of nodes.querySelectorAll("table")) {
    const frame = Object.assign(make("div", "", "table"), { tabIndex: 0 }); // scrolls by itself, by keyboard too
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
  return directed(nodes);
}

/** Each block runs as its own text does. */
function directed(nodes) {
  for (const node of nodes.children) node.dir ||= "auto";
  return nodes;
}
