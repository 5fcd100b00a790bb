// Converts Markdown to nodes. The output of a model is not trusted: HTML in it is shown as text. Of the HTML
// that marked makes from the rest, DOMPurify keeps only a short list of elements. Pictures become links,
// because the browser would request them from other servers.
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

// A text that is nested thousands of times overflows the stack of the parser, or the parser silently loses
// the text.
const guarded = (work) => {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return null;
  }
};

const TOO_DEEP = /(?:(?:>|[-*+] )[ \t]*){100}/; // nested quotes or lists, for which the parser needs seconds

/** The blocks of a Markdown text, each with its text as `raw`; null if the text is nested too deeply. */
export const blocks = (text) => (TOO_DEEP.test(text) ? null : guarded(() => marked.lexer(text)));

/** The nodes of some blocks. A text that is nested too deeply becomes plain text. */
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
    // a wide table scrolls by itself, with the keyboard too
    const frame = Object.assign(make("div", "", "table"), { tabIndex: 0 });
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
  return directed(nodes);
}

/** Each block gets the writing direction of its own text. */
function directed(nodes) {
  for (const node of nodes.children) node.dir ||= "auto";
  return nodes;
}
