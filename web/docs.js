// Shows the gateway's OpenAPI document: each request with its parameters, its body and its answers, and the named schemas.
import { $, make, put } from "./dom.js";

const METHODS = ["get", "post", "put", "patch", "delete"]; // not OPTIONS and HEAD, which browsers ask by themselves

/** A block that opens. Its contents are made when it is opened for the first time. */
function block(title, about, contents) {
  const details = make("details"), summary = make("summary");
  summary.append(make("code", title), about ? ` ${about}` : "");
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(contents());
  });
  return details;
}

function json(value) {
  const pre = make("pre", JSON.stringify(value, null, 2));
  pre.tabIndex = 0; // it scrolls, so the keyboard must reach it
  return pre;
}

function list(pairs) {
  const all = make("dl");
  for (const [name, about] of pairs) all.append(make("dt", name), make("dd", about));
  return all;
}

/** What an object of the document says, or the named object that it refers to. */
function resolved(document, value) {
  const parts = value.$ref?.slice(2).split("/");
  return parts ? parts.reduce((found, part) => found[part.replaceAll("~1", "/").replaceAll("~0", "~")], document) : value;
}

function operation(document, path, shared, told) {
  const body = make("div");
  if (told.description) body.append(make("p", told.description));
  const parameters = [...shared, ...(told.parameters ?? [])].map((one) => resolved(document, one));
  if (parameters.length) {
    body.append(make("h3", "Parameters"));
    body.append(list(parameters.map((one) => [`${one.name} (${one.in}${one.required ? ", required" : ""})`, one.description ?? ""])));
  }
  for (const [type, { schema }] of Object.entries(told.requestBody?.content ?? {})) body.append(make("h3", `Body: ${type}`), json(schema));
  body.append(make("h3", "Answers"));
  const answers = Object.entries(told.responses ?? {}).map(([status, one]) => [status, resolved(document, one)]);
  body.append(list(answers.map(([status, one]) => [`${status} ${Object.keys(one.content ?? {}).join(", ")}`, one.description ?? ""])));
  return body;
}

async function show() {
  const answer = await fetch("openapi.json", { cache: "no-store" }).catch(() => null);
  if (!answer?.ok) return put($("state"), "The document cannot be read. Load the page again.");
  const document = await answer.json();
  for (const [path, item] of Object.entries(document.paths)) {
    for (const method of METHODS.filter((one) => item[one])) {
      const told = item[method];
      const contents = () => operation(document, path, item.parameters ?? [], told);
      $("operations").append(block(`${method.toUpperCase()} ${path}`, told.summary, contents));
    }
  }
  for (const [name, schema] of Object.entries(document.components?.schemas ?? {})) {
    $("schemas").append(block(name, "", () => { const body = make("div"); body.append(json(schema)); return body; }));
  }
  put($("state"), "");
}

show();
