// Tests of web/ways.js: the titles of a question, its ways, and the answer of each way.
import assert from "node:assert/strict";
import { test } from "node:test";
import { asked, read, told } from "../../web/ways.js";

// A way as [label, kinds of its fields], and the answers that it makes from these texts.
const seen = (interrupt) => asked(interrupt).items.map(({ title, ways }) => [title, ways.map(({ label, fields }) => [label, fields.map(({ kind }) => kind)])]);
const answerOf = (interrupt, ...chosen) => {
  const { items, answer } = asked(interrupt);
  return answer(items.map(({ ways }, at) => {
    const [number, texts = [], isJson = false] = chosen[at];
    const { fields, value } = ways[number];
    return value(Object.fromEntries(fields.map((field, place) => [field.name, read(field, texts[place], isJson)])));
  }));
};
const request = (name, args = {}) => ({ name, args, description: `Please look.\n\nTool: ${name}\nArgs: {}` });
const config = (name, ...allowed) => ({ action_name: name, allowed_decisions: allowed });
const schema = (response_schema, value = "?") => ({ value, response_schema });

test("actions are decided in their order, each as its review allows", () => {
  const value = { action_requests: [request("a", { n: 1 }), request("b"), request("c")], review_configs: [config("b", "reject", "respond"), config("a", "approve", "edit")] };
  assert.deepEqual(seen({ value }), [
    ["May “a” be called?", [["Approve", []], ["Edit", ["json"]]]],
    ["May “b” be called?", [["Reject", ["text"]], ["Answer instead", ["text"]]]],
    ["May “c” be called?", [["Approve", []], ["Edit", ["json"]], ["Reject", ["text"]], ["Answer instead", ["text"]]]],
  ]);
  assert.equal(asked({ value }).items[0].text, "Please look.");
  assert.deepEqual(answerOf({ value }, [1, ['{"n": 2}']], [0, [""]], [0]), {
    decisions: [{ type: "edit", edited_action: { name: "a", args: { n: 2 } } }, { type: "reject" }, { type: "approve" }],
  });
  assert.deepEqual(answerOf({ value }, [0], [1, ["no need"]], [2, ["never"]]), {
    decisions: [{ type: "approve" }, { type: "respond", message: "no need" }, { type: "reject", message: "never" }],
  });
});

test("an action that is a question of its own is answered by one decision", () => {
  const $defs = { Yes: { properties: { type: { const: "approve" } } }, No: { properties: { type: { const: "reject" } } } };
  const one = schema({ $defs, oneOf: [{ $ref: "#/$defs/Yes" }, { $ref: "#/$defs/No" }] }, { type: "tool_approval", name: "send", args: {}, description: "" });
  assert.deepEqual(seen(one), [["May “send” be called?", [["Approve", []], ["Reject", ["text"]]]]]);
  assert.deepEqual(answerOf(one, [0]), { type: "approve" });
  assert.deepEqual(seen(schema({ properties: { type: { const: "approve" } } }, one.value))[0][1], [["Approve", []]]);
});

test("a raw question takes a text, or JSON", () => {
  assert.deepEqual(seen({ value: "Why?" }), [["Why?", [["", ["any"]]]]]);
  assert.equal(answerOf({ value: "Why?" }, [0, ["12"]]), "12");
  assert.equal(answerOf({ value: "Why?" }, [0, ["12"], true]), 12);
  assert.throws(() => answerOf({ value: "Why?" }, [0, ["{"], true]), SyntaxError);
  for (const [value, title, shown] of [
    [{ question: "Send?", to: "Ann" }, "Send?", { to: "Ann" }], [{ to: "Ann" }, "The chain asks", { to: "Ann" }], [[1], "The chain asks", [1]],
    [null, "The chain asks", undefined], ["x".repeat(201), "The chain asks", undefined], [{ action_requests: [] }, "The chain asks", { action_requests: [] }],
  ]) {
    const [item] = asked({ value }).items;
    assert.deepEqual([item.title, item.shown], [title, shown]);
  }
  assert.equal(asked({ value: "x".repeat(201) }).items[0].text.length, 201);
});

test("choices are buttons, in the value or in the schema", () => {
  const labels = (one) => asked(one).items[0].ways.map(({ label }) => label);
  const named = { value: { question: "?", options: ["a", 2, { label: "Third", value: { n: 3 } }] } };
  assert.deepEqual(labels(named), ["a", "2", "Third"]);
  assert.deepEqual([0, 1, 2].map((at) => answerOf(named, [at])), ["a", 2, { n: 3 }]);
  assert.equal(asked(named).items[0].shown, undefined);
  assert.deepEqual(labels(schema({ enum: ["a", null] })), ["a", "Nothing"]);
  assert.deepEqual(labels(schema({ type: "boolean" })), ["Yes", "No"]);
  assert.deepEqual(labels(schema({ oneOf: [{ const: 1, title: "One" }, { const: 2 }] })), ["One", "2"]);
  assert.equal(answerOf(schema({ type: "boolean" }), [1]), false);
  const many = schema({ enum: Array.from({ length: 9 }, (_, at) => at) });
  assert.deepEqual(seen(many)[0][1], [["", ["choice"]]]);
  assert.equal(answerOf(many, [0, ["8"]]), 8);
});

test("an object's schema is a form", () => {
  const properties = {
    text: { type: "string", default: "x" }, whole: { $ref: "#/$defs/n" }, part: { type: "number" }, sure: { type: "boolean" },
    kind: { const: "k" }, maybe: { anyOf: [{ type: "string" }, { type: "null" }] }, list: { type: ["array", "null"] }, free: {},
  };
  const one = schema({ type: "object", $defs: { n: { type: "integer" } }, properties, required: ["text", "kind", "maybe"] });
  assert.deepEqual(seen(one)[0][1], [["", ["line", "whole", "number", "choice", "line", "json", "any"]]]);
  assert.equal(asked(one).items[0].ways[0].fields[0].initial, "x");
  assert.deepEqual(answerOf(one, [0, ["t", "1", "1.5", "1", "", "[1]", "y"]]), { text: "t", whole: 1, part: 1.5, sure: false, kind: "k", maybe: null, list: [1], free: "y" });
  assert.deepEqual(answerOf(one, [0, ["t", "", "", "", "m", "", " "]]), { text: "t", kind: "k", maybe: "m" });
  assert.deepEqual(seen(schema({ type: "object" }))[0][1], [["", ["json"]]]);
  assert.deepEqual(seen(schema({ properties: { type: { const: "go" } }, required: ["type"] }))[0][1], [["Go on", []]]);
  assert.deepEqual(answerOf(schema({ properties: { type: { const: "go" } }, required: ["type"] }), [0]), { type: "go" });
  const odd = answerOf(schema({ properties: JSON.parse('{"__proto__": {"type": "string"}}') }), [0, ["p"]]);
  assert.deepEqual(Object.entries(odd), [["__proto__", "p"]]);
});

test("forms that exclude each other are ways", () => {
  const one = schema({ anyOf: [{ const: "retry" }, { type: "object", title: "Output", properties: { output: {} } }, { type: "string" }] });
  assert.deepEqual(seen(one)[0][1], [["retry", []], ["Output", ["any"]], ["Form 3", ["line"]]]);
  assert.deepEqual(answerOf(one, [1, ["[1]"], true]), { output: [1] });
  assert.equal(answerOf(one, [2, ["s"]]), "s");
});

test("a tool whose call is in doubt is called again, or somebody says what it has answered", () => {
  const one = { value: { reason: "tool_unknown", tool: "pay", call_id: "c", input: { n: 1 } }, response_schema: { anyOf: [] } };
  assert.deepEqual(seen(one), [["Has “pay” done its work?", [["Call it again", []], ["It has answered", ["any"]]]]]);
  assert.equal(answerOf(one, [0]), "retry");
  assert.deepEqual(answerOf(one, [1, ["paid"]]), { output: "paid" });
});

test("a schema that leads nowhere takes any answer", () => {
  for (const given of [{}, { $ref: "#/$defs/x" }, { $ref: "#" }, { $ref: "http://x" }, { $defs: { a: { $ref: "#/$defs/a" } }, $ref: "#/$defs/a" }]) {
    assert.deepEqual(seen(schema(given))[0][1], [["", ["any"]]]);
  }
  assert.deepEqual(seen(schema({ allOf: [{ type: "string" }] }))[0][1], [["", ["json"]]]);
});

test("what was answered is told in short", () => {
  const [, edit, reject] = asked({ value: { action_requests: [request("a")], review_configs: [] } }).items[0].ways;
  assert.equal(told(reject, ["too early"]), "Reject: too early");
  assert.equal(told(reject, [""]), "Reject");
  assert.equal(told(edit, ["x".repeat(999)]).length, 201);
});
