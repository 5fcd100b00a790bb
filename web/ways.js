// The questions of a stopped graph, and the ways in which each can be answered. This module has only values,
// no elements of the page.
//
// An item is one decision: `{ title, text, shown, ways }`, where `shown` is a JSON value to display, or
// undefined. A way is one possible decision: `{ label, fields, value }`. A person fills in its fields, and
// `value` makes the answer from the contents of the fields, keyed by their names. A field is `{ name, label,
// kind, required }`, optionally with `help`, `choices`, `initial` and `isObject`. `read` lists the kinds.
import { ASKS, DECISIONS } from "./words.js";

const MOST_BUTTONS = 8; // for more choices, a list is shown
const MOST_FIELDS = 30; // for an object with more fields, the person writes JSON
const MOST_REFERENCES = 8; // steps from one $ref to the next
const LONGEST_TITLE = 200; // characters of a title, also of an answered question
// names of members that contain the question's sentence
const SPEAKS = ["question", "message", "prompt", "text", "description"];
// kinds of fields for JSON Schema's types
const KINDS = { string: "line", number: "number", integer: "whole" };
const SHAPES = ["type", "properties", "items", "anyOf", "oneOf", "allOf"]; // a schema without these takes any value

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const list = (value) => (Array.isArray(value) ? value : []);
const cut = (text) => (text.length > LONGEST_TITLE ? `${text.slice(0, LONGEST_TITLE)}…` : text);

function named(value) {
  if (typeof value === "string") return value;
  return value === null ? ASKS.nothing : value === true ? ASKS.yes : value === false ? ASKS.no : JSON.stringify(value);
}

/** The items of one interrupt, and the function that makes the interrupt's answer from the answers to the
 * items. */
export function asked({ value, response_schema: schema }) {
  const requests = list(value?.action_requests).filter(isObject);
  if (requests.length) { // LangChain's HumanInTheLoopMiddleware: one interrupt for all actions
    const configs = list(value.review_configs);
    const allowed = ({ name }) => list(configs.find((one) => one?.action_name === name)?.allowed_decisions);
    return { items: requests.map((one) => action(one, allowed(one))), answer: (decisions) => ({ decisions }) };
  }
  let item;
  // or one interrupt for each action
  if (value?.type === "tool_approval" && isObject(value.args)) item = action(value, allowedBy(schema));
  else if (value?.reason === "tool_unknown" && "tool" in value) item = doubt(value);
  else item = plain(value, schema);
  return { items: [item], answer: ([one]) => one };
}

/** The question of an interrupt, in short. */
export const titles = (interrupt) => asked(interrupt).items.map(({ title }) => title);

/** The value of a field's text; undefined if the field is empty. Throws SyntaxError if the text must be JSON
 * and is not. */
export function read({ kind, choices }, text, isJson = false) {
  if (kind === "choice") return choices[text]?.value;
  if (!text.trim()) return undefined;
  if (kind === "json" || (kind === "any" && isJson)) return JSON.parse(text);
  // else any, text of several lines, or one line
  return kind === "number" || kind === "whole" ? Number(text) : text;
}

/** The answer, in a form for a person to read; `texts` are the contents of the fields. */
export function told({ label, fields }, texts) {
  const filled = fields.map(({ kind, choices }, at) => (kind === "choice" ? choices[texts[at]]?.label : texts[at]));
  return cut([label, filled.filter(Boolean).join(", ")].filter(Boolean).join(": "));
}

function action({ name, args, description }, allowed) {
  // the text after it is the arguments
  const [says] = typeof description === "string" ? description.split("\n\nTool: ") : [""];
  const kinds = allowed.filter((one) => Object.hasOwn(ACTIONS, one));
  const ways = (kinds.length ? kinds : Object.keys(ACTIONS)).map((kind) => ({ label: DECISIONS[kind], ...ACTIONS[kind](name, args ?? {}) }));
  return { title: ASKS.action(named(name)), text: says, shown: args ?? {}, ways };
}

const ACTIONS = {
  approve: () => ({ fields: [], value: () => ({ type: "approve" }) }),
  edit: (name, args) => ({
    fields: [{ name: "args", label: ASKS.edited, kind: "json", required: true, isObject: true, initial: JSON.stringify(args, null, 2) }],
    value: (given) => ({ type: "edit", edited_action: { name, args: given.args } }),
  }),
  reject: () => ({
    fields: [{ name: "message", label: ASKS.why, kind: "text", required: false }],
    value: ({ message }) => (message ? { type: "reject", message } : { type: "reject" }),
  }),
  respond: () => ({
    fields: [{ name: "message", label: ASKS.instead, kind: "text", required: true }],
    value: ({ message }) => ({ type: "respond", message }),
  }),
};

function allowedBy(schema) {
  const root = isObject(schema) ? schema : {};
  const types = list(root.oneOf ?? root.anyOf ?? [root]).map((one) => resolved(one, root).properties?.type);
  return types.flatMap((type) => (isObject(type) ? type.const ?? list(type.enum) : []));
}

function doubt({ tool, input }) { // asks about a tool call during which a worker died
  const output = { name: "output", label: ASKS.output, kind: "any", required: true };
  const ways = [
    { label: ASKS.callAgain, fields: [], value: () => "retry" },
    { label: ASKS.hasAnswered, fields: [output], value: (given) => ({ output: given.output }) },
  ];
  return { title: ASKS.doubt(named(tool)), text: ASKS.doubted, shown: input, ways };
}

function plain(value, schema) {
  const own = isObject(value) ? value : {};
  const speaks = SPEAKS.find((name) => typeof own[name] === "string" && own[name]);
  const text = typeof value === "string" ? value : speaks ? own[speaks] : "";
  const choices = isObject(schema) ? [] : list(own.choices ?? own.options);
  const rest = Object.entries(own).filter(([name]) => name !== speaks && !(choices.length && ["choices", "options"].includes(name)));
  const shown = isObject(value) ? (rest.length ? Object.fromEntries(rest) : undefined) : text || value === null ? undefined : value;
  const ways = isObject(schema) ? waysOf(schema) : choices.length ? buttons(choices.map(choice)) : [whole({ kind: "any", required: true })];
  const isTitle = text !== "" && text.length <= LONGEST_TITLE;
  return { title: isTitle ? text : ASKS.question, text: isTitle ? "" : text, shown, ways };
}

const choice = (one) => (isObject(one) && "value" in one ? { label: named(one.label ?? one.value), value: one.value } : { label: named(one), value: one });
const whole = (field) => ({ label: "", fields: [{ name: "answer", label: ASKS.answer, ...field }], value: ({ answer }) => answer });

function buttons(choices) {
  if (choices.length > MOST_BUTTONS) return [whole({ kind: "choice", required: true, choices })];
  return choices.map(({ label, value }) => ({ label, fields: [], value: () => value }));
}

function waysOf(schema) {
  const choices = choicesOf(schema, schema);
  if (choices.length) return buttons(choices);
  const variants = list(schema.oneOf ?? schema.anyOf).map((one) => resolved(one, schema));
  if (variants.length < 2 || variants.length > MOST_BUTTONS) return [formOf(resolved(schema, schema), schema)];
  return variants.flatMap((one, at) => {
    const fixed = choicesOf(one, schema);
    return fixed.length ? buttons(fixed) : [{ ...formOf(one, schema), label: one.title ?? ASKS.form(at + 1) }];
  });
}

/** The values that a schema allows, if the schema lists all of them. */
function choicesOf(schema, root) {
  const given = resolved(schema, root);
  if ("const" in given) return [{ label: given.title ?? named(given.const), value: given.const }];
  if (Array.isArray(given.enum)) return given.enum.map((value) => ({ label: named(value), value }));
  if (given.type === "boolean") return [true, false].map(choice);
  if (given.type === "null") return [choice(null)];
  const each = list(given.oneOf ?? given.anyOf).map((one) => resolved(one, root));
  return each.every((one) => "const" in one) ? each.map((one) => ({ label: one.title ?? named(one.const), value: one.const })) : [];
}

function formOf(schema, root) {
  const names = isObject(schema.properties) ? Object.keys(schema.properties) : [];
  if (!names.length && schema.type !== "object") return whole(fieldOf("answer", { title: ASKS.answer, ...schema }, root, true));
  if (!names.length || names.length > MOST_FIELDS) return whole({ label: ASKS.object, kind: "json", required: true, isObject: true });
  const all = names.map((name) => fieldOf(name, schema.properties[name], root, list(schema.required).includes(name)));
  const fields = all.filter(({ kind }) => kind !== "fixed");
  const value = (given) => Object.fromEntries(all.map((field) => [field.name, given[field.name] ?? field.empty]).filter(([, one]) => one !== undefined));
  return { label: fields.length ? "" : ASKS.goOn, fields, value };
}

/** The field for a property; `empty` is the value of an empty field. */
function fieldOf(name, schema, root, isRequired) {
  const given = resolved(schema, root);
  const { one, isNullable } = withoutNull(given, root);
  const label = given.title ?? name;
  const help = typeof given.description === "string" ? given.description : "";
  const base = { name, label, help, required: isRequired && !isNullable, empty: isRequired && isNullable ? null : undefined };
  const choices = choicesOf(one, root);
  if (choices.length === 1 && isRequired) return { ...base, kind: "fixed", empty: choices[0].value };
  if (choices.length) {
    const at = choices.findIndex(({ value }) => value === given.default);
    return { ...base, kind: "choice", choices, initial: at < 0 ? undefined : at };
  }
  const kind = KINDS[one.type] ?? (SHAPES.some((word) => word in one) ? "json" : "any");
  return { ...base, kind, initial: given.default === undefined || given.default === null ? undefined : named(given.default) };
}

/** A schema without its alternative null. */
function withoutNull(schema, root) {
  const kinds = list(schema.anyOf ?? schema.oneOf).map((one) => resolved(one, root));
  const others = kinds.filter(({ type }) => type !== "null");
  if (others.length < kinds.length) return { one: others.length === 1 ? others[0] : { anyOf: others }, isNullable: true };
  const types = list(schema.type).filter((type) => type !== "null");
  if (types.length < list(schema.type).length) return { one: { ...schema, type: types.length === 1 ? types[0] : types }, isNullable: true };
  return { one: schema, isNullable: false };
}

/** The schema that a $ref points to; an empty schema if the target does not exist. */
function resolved(schema, root) {
  let one = schema;
  for (let times = 0; isObject(one) && typeof one.$ref === "string"; times++) {
    if (times === MOST_REFERENCES || !one.$ref.startsWith("#/")) return {};
    const steps = one.$ref.slice(2).split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    one = steps.reduce((found, step) => (isObject(found) && Object.hasOwn(found, step) ? found[step] : undefined), root);
  }
  return isObject(one) ? one : {};
}
