// A page with the hook, for tests/test_npm.py: `?gateway=URL`, and the hook's options. `stream` is the hook's
// value at the newest render. `seen` has the id of every event that the hook received, also before a reload.
// `show(false)` unmounts the component. The page's clock runs fifty times as fast as the gateway's, because
// the length of its pauses is not tested.
import { StrictMode, createElement, useEffect, useState, version } from "react";
import { createRoot } from "react-dom/client";
import { Gateway } from "holdfast-client";
import { useHoldfastStream } from "holdfast-client/react";

const wait = globalThis.setTimeout;
globalThis.setTimeout = (work, ms, ...given) => wait(work, ms / 50, ...given);
const { gateway: url, patience = 120, ...options } = Object.fromEntries(new URLSearchParams(location.search));
const gateway = new Gateway(url, { patience: Number(patience), silence: 3000 });

const told = () => sessionStorage.getItem("seen") ?? "";
const onEvent = ({ id }) => sessionStorage.setItem("seen", `${told()} ${id}`);
Object.assign(globalThis, { version, mounts: 0 });
Object.defineProperty(globalThis, "seen", { get: () => told().split(" ").filter(Boolean) });

function Answer() {
  const stream = useHoldfastStream(gateway, { ...options, onEvent });
  globalThis.stream = stream;
  useEffect(() => { globalThis.mounts++; }, []);
  return createElement("pre", null, stream.text);
}

function App() {
  const [shown, show] = useState(true);
  globalThis.show = show;
  return shown ? createElement(Answer) : null;
}

createRoot(document.getElementById("root")).render(createElement(StrictMode, null, createElement(App)));
