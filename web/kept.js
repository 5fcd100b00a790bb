// What the browser stores for this page besides an API key: the theme, and the time of the first word of each
// answer.
const MOST_TIMES = 100;

// the browser may forbid storage
const read = (name) => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } };
const write = (name, value) => { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* then it lasts as long as the page */ } };

export const kept = { read, write };

/** The milliseconds from the question to the answer's first word, if this browser received the first word
 * live; else 0. */
export const firstWord = (id) => (read("first-words") ?? []).find(([one]) => one === id)?.[1] ?? 0;

export function keepFirstWord(id, ms) {
  const others = (read("first-words") ?? []).filter(([one]) => one !== id);
  write("first-words", [[id, Math.round(ms)], ...others].slice(0, MOST_TIMES));
}
