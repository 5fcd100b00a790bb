// What the browser keeps for this page beside an API key: how it looks, and when an answer's first word was seen.
const MOST_TIMES = 100;

const read = (name) => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } }; // storage may be forbidden
const write = (name, value) => { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* then it lasts as long as the page */ } };

export const kept = { read, write };

/** The milliseconds from the question to the answer's first word, where this browser has seen it come; else 0. */
export const firstWord = (id) => (read("first-words") ?? []).find(([one]) => one === id)?.[1] ?? 0;

export function keepFirstWord(id, ms) {
  const others = (read("first-words") ?? []).filter(([one]) => one !== id);
  write("first-words", [[id, Math.round(ms)], ...others].slice(0, MOST_TIMES));
}
