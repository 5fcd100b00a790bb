// Shows what an answer has in addition to its text: stages, tool calls, sources and the model's reasoning.
import { fill, make } from "./dom.js";
import { plural } from "./words.js";

/** Draw the stages and the nodes of a graph as a list of steps, including steps that have not begun. */
export function drawStages(list, { names, stream: { stages } }) {
  const waiting = names.filter((name) => !stages.some((stage) => stage.name === name));
  const steps = [...stages, ...waiting.map((name) => ({ name, run: 1, state: "waiting", parent: "" }))];
  fill(list, steps.length < 2 ? [] : steps.map(({ name, run, state, parent }) => {
    const item = make("li", run > 1 ? `${name} ${run}` : name, `${state}${parent ? " node" : ""}`);
    item.append(make("span", `, ${state}`, "unseen"));
    if (state === "started") item.setAttribute("aria-current", "step");
    return item;
  }));
}

export function drawDetails({ reasoning, tools, sources }, { stream }) {
  const events = stream.stages.flatMap((stage) => stage.events);
  const custom = (name) => events.filter(({ type, data }) => type === "custom" && data.name === name).map(({ data }) => data.data ?? {});
  const thought = custom("reasoning").map(({ delta }) => delta).join("");
  reasoning.hidden = !thought;
  if (reasoning.lastElementChild.textContent !== thought) reasoning.lastElementChild.textContent = thought;
  const calls = new Map();
  for (const { data } of events.filter(({ type }) => type === "tool")) calls.set(data.call_id, { ...calls.get(data.call_id), ...data });
  fill(tools, [...calls.values()].map(call));
  const found = new Map(custom("sources").flatMap(({ documents = [] }) => documents).map((one) => [one.id ?? one.source, one]));
  sources.hidden = !found.size;
  sources.firstElementChild.textContent = plural(found.size, "source");
  fill(sources.lastElementChild, [...found.values()].map(source));
}

/** The result of a chain that writes no text. */
export function result({ stages }) {
  const found = stages.at(-1)?.events.findLast(({ type, data }) => type === "custom" && data.name === "result");
  return found ? `\`\`\`json\n${JSON.stringify(found.data.data, null, 2)}\n\`\`\`` : "";
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

function call({ name, state, input, output }) {
  const item = make("li", "", state), details = make("details"), summary = make("summary", name);
  summary.append(make("span", state === "started" ? "running" : state, "how-far"));
  details.append(summary, scrolls(shown(input ?? ""), "What the tool was given"),
    ...(output === undefined ? [] : [scrolls(shown(output), "What the tool has answered", "output")]));
  item.append(details);
  return item;
}

function scrolls(text, label, name = "") {
  const pre = Object.assign(make("pre", text, name), { tabIndex: 0, dir: "auto" });
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", label);
  return pre;
}

// when opened, it shows its text, and a link to its page if it has one
function source({ title, source: where, text = "" }) {
  const item = make("li"), details = make("details"), summary = make("summary");
  const isPage = /^https?:/.test(where ?? "");
  summary.append(Object.assign(make("strong", title || where || "Untitled"), { dir: "auto" }));
  if (where && where !== title) summary.append(make("span", where, "where"));
  details.append(summary);
  if (isPage) details.append(Object.assign(make("a", "Open the page", "page-of"), { href: where, target: "_blank", rel: "noopener noreferrer" }));
  details.append(Object.assign(make("p", text || "It has no text here."), { dir: "auto" }));
  item.append(details);
  return item;
}
