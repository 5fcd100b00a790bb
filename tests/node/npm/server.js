// The hook where nothing is mounted, as a server renders it.
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { useHoldfastStream } from "holdfast-client/react";

console.log(renderToString(createElement(() => createElement("i", null, useHoldfastStream("https://gateway").status))));
