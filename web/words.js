// What the page says, in words for somebody who knows nothing of HTTP.
import { Refused, Unreachable } from "./client.js";

export const STATES = { queued: "In the queue", running: "Answering", done: "Done", failed: "Failed", cancelled: "Stopped", unknown: "Done",
  waiting: "Waiting for your answer", answered: "Answered", stopped: "Stopped to ask" };
export const MODEL = { loading: "Model is loading", ready: "Model ready", configured: "Model configured", failed: "No model: answers will fail" };

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const wait = (error) => (error.retryAfter ? ` Try again in ${plural(error.retryAfter, "second")}.` : " Try again in a while.");

/** Why nothing comes, kindly: the note, and whether asking the same again may help. */
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

/** What a `failed` event says. */
export const failure = ({ message, retryable }) =>
  `Sorry, this answer did not come to its end. ${message}${retryable ? " Asking again may help." : ""}`;

/** A person's decisions about an action, by LangChain's names. */
export const DECISIONS = { approve: "Approve", edit: "Edit", reject: "Reject", respond: "Answer instead" };

/** What the form of a question says. */
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

/** What stands where a question was. */
export const ANSWERED = {
  you: "You have answered.",
  known: "Answered.",
  other: "Somebody else has answered first. Your answer was not taken; what follows goes on with theirs.",
  over: "This question can be answered no more.",
  never: "This question cannot be answered.",
};

/** Why an answer was not taken, and whether it may be sent again. */
export function notTaken(error) {
  if (!(error instanceof Refused)) return told(error);
  if (["not_waiting", "unknown_interrupt", "unanswered_interrupts"].includes(error.code)) return [ANSWERED.over, false];
  if ([404, 410].includes(error.status)) return [ANSWERED.over, false];
  return [error.status === 422 ? `This answer was not taken: ${error.message}` : told(error)[0], true];
}
