// What the page says, in words for somebody who knows nothing of HTTP.
import { Refused, Unreachable } from "./client.js";

export const STATES = { queued: "In the queue", running: "Answering", done: "Done", failed: "Failed", cancelled: "Stopped", unknown: "Done" };
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
