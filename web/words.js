// The texts of the page, for a person who knows nothing of HTTP.
import { Refused, Unreachable } from "./client.js";

export const STATES = { queued: "In the queue", running: "Answering", done: "Done", failed: "Failed", cancelled: "Stopped", unknown: "Done",
  waiting: "Waiting for your answer", answered: "Answered", stopped: "Stopped to ask", dead: "The worker is dead", lost: "Not followed",
  away: "Connection cut, coming back", loading: "Waiting for the model to load", nobody: "No worker is running: start one with “holdfast worker”" };
export const MODEL = { loading: "Toy model is loading", ready: "Toy model ready", configured: "Model configured", failed: "No model: answers will fail",
  scripted: "Scripted, no model", away: "Gateway out of reach" };
export const MODEL_IS = {
  loading: "The small packaged model is being loaded: a toy that shows how answers travel. Its first answer waits for it.",
  ready: "The small packaged model, on this machine: a toy that shows how answers travel, and knows little. For a real one, set OPENAI_API_KEY "
    + "(or AZURE_OPENAI_ENDPOINT) and start the gateway again.",
  configured: "The one that OPENAI_API_KEY, OPENAI_BASE_URL or AZURE_OPENAI_ENDPOINT names, as GATEWAY_MODEL; under each answer stands which one wrote it.",
  failed: "There is none: set OPENAI_API_KEY (or AZURE_OPENAI_ENDPOINT), and start the gateway again.",
  scripted: "None: this chain says a script, so that there is something to lose before a model is set up. For real answers set OPENAI_API_KEY "
    + "(or AZURE_OPENAI_ENDPOINT), start the gateway again, and choose the chain “chat”.",
  away: "The gateway does not answer. This page looks again when the network is back.",
};

/** The description of a chain. */
export const CHAIN = ({ name, stages }) => `${name === "demo" ? "A scripted answer, by no model: it shows what the gateway does." : "The program that answers."} `
  + (stages.length > 1 ? `“${name}” works in ${stages.length} stages: ${stages.join(", ")}.` : `“${name}” works in one stage.`);
CHAIN.unknown = "The program that answers. This gateway does not say which ones it has.";

export const RAIL = {
  none: "The gateway shows no list of conversations here.", empty: "What you ask stands here, also after a reload.", live: "being written",
  waiting: "asks you", failed: "failed", elsewhere: (chain) => `Asked elsewhere, of ${chain}`,
  delete: (title) => `Delete “${title}”`, undeleted: "The conversation was not deleted, or not all of it. Try again.",
};

/** The start time of a stream, in few words. */
export function when(iso) {
  const then = new Date(iso), isToday = then.toDateString() === new Date().toDateString();
  return then.toLocaleString(undefined, isToday ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" });
}

/** The texts of the bar with which a person tries to lose an answer. */
export const LOSING = {
  why: "The answer goes on without you, and you come back to all of it.",
  cut: "Cut. The page is coming back by itself…",
  back: "Back. It went on where it was: nothing is missing, nothing came twice.",
  dead: "The worker is dead.",
  within: (left) => `Another one takes over within ${left} s.`,
  now: "Another one takes over any moment now.",
  taken: "Another worker has taken over, and goes on where the dead one was.",
  nobody: "Nobody is at work on this answer just now.",
  foreign: "Only a gateway of your own lets its workers be killed: make run.",
};

/** The name of the model that wrote an answer. */
export const by = (model) => (/smollm/i.test(model) ? `${model}, a toy` : model);

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const times = (number) => (number === 1 ? "once" : number === 2 ? "twice" : `${number} times`);
const wait = (error) => (error.retryAfter ? ` Try again in ${plural(error.retryAfter, "second")}.` : " Try again in a while.");

/** How an answer arrived: one sentence for each fact. */
export function arrival(reader) {
  const { firstWordMs, end, events, doubled, cuts, resumes, resumedBehind, logLost } = reader;
  const { usage, finish_reason: why, duration_ms: took, attempts = 1 } = end ?? {};
  return [
    firstWordMs && took ? `The first word came after ${seconds(firstWordMs)}, the last after ${seconds(took)}.`
      : firstWordMs ? `The first word came after ${seconds(firstWordMs)}.` : took && `It took ${seconds(took)} to write.`,
    events.length && `It came in ${plural(events.length, "event")}; ${doubled ? `${doubled} of them came twice` : "none came twice, none is missing"}.`,
    cuts && `You cut the connection ${times(cuts)}.`,
    resumes && `The connection was lost and came back ${times(resumes)}${resumes > 1 ? ", the last time" : ""} behind event ${resumedBehind}: only what was missing was sent.`,
    attempts > 1 && `${attempts} workers wrote it, one after the other: each went on where the one before had died or failed.`,
    logLost && "The gateway's store had lost a part of it, so all was sent again.",
    usage?.total_tokens && `The model read ${plural(usage.input_tokens, "token")} and wrote ${usage.output_tokens}.`,
    why === "length" && "The model stopped at its limit of length."].filter(Boolean);
}
export const SAME = { true: "Compared with the gateway's record: the text is the same.", false: "Compared with the gateway's record: the text differs." };

/** How the second device's copy arrived. */
export const secondArrival = ({ events, doubled, resumes, resumedBehind }, isSame) => [
  `${plural(events.length, "event")}, ${doubled ? `${doubled} of them twice` : "none twice"}.`,
  resumes && `It was cut, and came back ${times(resumes)}, behind event ${resumedBehind}.`,
  isSame ? "Byte for byte what the first device has." : "It differs from what the first device has."].filter(Boolean);

/** Why no answer comes, in friendly words: the note, and whether a repetition of the question may help. */
export function told(error) {
  if (error instanceof Unreachable) return ["The gateway cannot be reached. What was said is kept, and goes on where it was.", true];
  if (!(error instanceof Refused)) return [`Something went wrong here: ${error.message}`, true];
  const { status, code, message } = error;
  if (code === "over_quota") return [`That was a lot in a short time. ${message}.${wait(error)}`.replace("..", "."), true];
  if (code === "queue_full") return [`Many are asking just now.${wait(error)}`, true];
  if (status === 429) return [`Many are reading just now.${wait(error)}`, true];
  if (status === 503) return [`The gateway has lost its store for a moment.${wait(error)}`, true];
  if (status === 413) return ["That is more than this gateway takes at once. Begin a new conversation, or ask for less.", false];
  if (status === 404) return ["There is no such answer, or it is somebody else's.", false];
  if (status === 410) return ["The stream is past its retention.", false];
  return [message, status >= 500];
}

/** The text of a `failed` event. */
export const failure = ({ message, retryable }) =>
  `Sorry, this answer did not come to its end. ${message}${retryable ? " Asking again may help." : ""}`;

/** A person's decisions about an action, under LangChain's names. */
export const DECISIONS = { approve: "Approve", edit: "Edit", reject: "Reject", respond: "Answer instead" };

/** The texts of the form for questions. */
export const ASKS = {
  question: "The chain asks",
  action: (name) => `May “${name}” be called?`,
  numbered: (title, number, count) => `${title} (${number} of ${count})`,
  shown: "What it is about",
  edited: "Arguments, as JSON",
  why: "Why not? (may be left out)",
  instead: "The answer, instead of the call",
  doubt: (name) => `Has “${name}” done its work?`,
  doubted: "The worker died during this call, and nobody knows how far the call had come.",
  callAgain: "Call it again",
  hasAnswered: "It has answered",
  output: "What it has answered",
  answer: "Your answer",
  object: "Your answer, as JSON",
  isJson: "This is JSON",
  form: (number) => `Form ${number}`,
  choose: "Choose one",
  yes: "Yes",
  no: "No",
  nothing: "Nothing",
  send: (number) => (number > 1 ? `Send ${number} answers` : "Send answer"),
  sending: "Sending…",
  goOn: "Go on",
  stopped: (nodes) => (nodes?.length ? `The chain has stopped before ${nodes.join(", ")}.` : "The chain has stopped at a breakpoint."),
  missing: (title) => `Not answered yet: ${title}`,
  empty: "this is to be filled in.",
  noJson: "this is not valid JSON.",
  noObject: 'this is not a JSON object, such as {"name": "value"}.',
  noNumber: "this is not a number that is asked for.",
};

/** The text in place of an answered question. */
export const ANSWERED = {
  you: "You have answered.",
  known: "Answered.",
  other: "Somebody else has answered first. Your answer was not taken; what follows goes on with theirs.",
  over: "This question can be answered no more.",
  never: "This question cannot be answered.",
};

/** Why an answer was refused, and whether it may be sent again. */
export function notTaken(error) {
  if (!(error instanceof Refused)) return told(error);
  if (["not_waiting", "unknown_interrupt", "unanswered_interrupts"].includes(error.code)) return [ANSWERED.over, false];
  if ([404, 410].includes(error.status)) return [ANSWERED.over, false];
  return [error.status === 422 ? `This answer was not taken: ${error.message}` : told(error)[0], true];
}
