// Colours for code: comments, strings, numbers, keywords and calls of the common languages. One regular
// expression reads a program from left to right, without a grammar. If it is wrong, only a colour is wrong.

const words = (text) => new Set(text.split(" "));
const C_LIKE = "if else for while do switch case break continue return new this class struct enum public private protected static "
  + "const void int long float double bool boolean char true false null try catch finally throw throws import package interface "
  + "extends implements final abstract using namespace var let fn func pub use mut impl match trait type where defer go chan map "
  + "range nil self Self async await override readonly string string_view auto include define";
const KEYWORDS = {
  python: words("and as assert async await break class continue def del elif else except False finally for from global if import in is "
    + "lambda match case None nonlocal not or pass raise return True try while with yield self"),
  javascript: words("async await break case catch class const continue default delete do else export extends false finally for from "
    + "function get if import in instanceof interface let new null of return set static super switch this throw true try type typeof "
    + "undefined var void while yield enum implements readonly as"),
  shell: words("if then else elif fi for while do done case esac in function return export local set unset echo exit cd source"),
  sql: words("select from where and or not in is null as join left right inner outer full on group by order having limit offset insert "
    + "into values update set delete create table index view drop alter add primary key foreign references distinct union all case "
    + "when then else end exists between like with asc desc"),
  c: words(C_LIKE),
  json: words("true false null"),
  yaml: words("true false null yes no on off"),
  css: words("important media supports import"),
};
const NAMES = { // language names that people write after ```
  python: "python py python3", javascript: "javascript js jsx mjs typescript ts tsx node", shell: "bash sh shell zsh console",
  sql: "sql postgresql mysql sqlite", c: "c cpp c++ h java kotlin swift go rust rs csharp cs php scala dart", json: "json jsonc json5",
  yaml: "yaml yml toml ini", css: "css scss less", markup: "html xml svg vue",
};
const FAMILY = new Map(Object.entries(NAMES).flatMap(([family, names]) => names.split(" ").map((name) => [name, family])));

const HASH = "#[^\\n]*", SLASHES = "\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)";
const TEXTS = "\"(?:[^\"\\\\\\n]|\\\\.)*(?:\"|(?=\\n)|$)|'(?:[^'\\\\\\n]|\\\\.)*(?:'|(?=\\n)|$)";
const LONG = "\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$)|", TICKS = "`(?:[^`\\\\]|\\\\[\\s\\S])*(?:`|$)|";
const made = (comment, text, more = "[A-Za-z_$][\\w$]*") =>
  new RegExp(`(?<com>${comment})|(?<str>${text})|(?<num>\\b(?:0[xX][\\da-fA-F]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)|(?<word>${more})|[\\s\\S]`, "y");
const RULES = {
  python: made(HASH, LONG + TEXTS), javascript: made(SLASHES, TICKS + TEXTS), shell: made("(?<=^|\\s)#[^\\n]*", TEXTS, "[A-Za-z_][\\w-]*"),
  sql: made("--[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)", TEXTS), c: made(SLASHES, TEXTS), json: made("\\/\\/[^\\n]*", TEXTS),
  yaml: made("(?<=^|\\s)#[^\\n]*", TEXTS, "[A-Za-z_][\\w-]*"), css: made("\\/\\*[\\s\\S]*?(?:\\*\\/|$)", TEXTS, "[A-Za-z_@-][\\w-]*"),
  markup: made("<!--[\\s\\S]*?(?:-->|$)", "\"[^\"\\n]*(?:\"|(?=\\n)|$)", "<\\/?[A-Za-z][\\w:-]*|\\/?>|[A-Za-z_][\\w:-]*"),
};

/** The internal name of a language; empty if the language is not known. */
export const known = (language) => FAMILY.get(language.toLowerCase()) ?? "";

/**
 * The pieces of a program, each `[kind, text]`, as far as they are certain; `kind` is empty for plain text.
 * While the program grows, a string or comment of several lines at its end is not certain, because it may go
 * on.
 */
export function pieces(source, language, isWhole) {
  const family = known(language);
  const rule = RULES[family];
  if (!rule) return source ? [["", source]] : [];
  const found = [];
  for (let at = 0; at < source.length; at = rule.lastIndex) {
    rule.lastIndex = at;
    const { 0: text, groups } = rule.exec(source);
    const kind = groups.com !== undefined ? "com" : groups.str !== undefined ? "str" : groups.num !== undefined ? "num"
      : groups.word !== undefined ? wordKind(family, text, source, rule.lastIndex) : "";
    if (!isWhole && rule.lastIndex === source.length && ["com", "str"].includes(kind) && text.includes("\n")) break;
    const mine = kind === "str" && ["json", "yaml"].includes(family) && /^\s*:/.test(source.slice(rule.lastIndex, rule.lastIndex + 20)) ? "key" : kind;
    if (found.length && found.at(-1)[0] === mine) found.at(-1)[1] += text;
    else found.push([mine, text]);
  }
  return found;
}

function wordKind(family, text, source, end) {
  if (family === "markup") return /^[<>/]/.test(text) ? "key" : source[end] === "=" ? "fn" : "";
  if (["yaml", "css"].includes(family) && /^\s*:/.test(source.slice(end, end + 20))) return "key";
  if (KEYWORDS[family].has(family === "sql" ? text.toLowerCase() : text)) return "key";
  return source[end] === "(" ? "fn" : "";
}
