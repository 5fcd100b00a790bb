// Renders the hook without mounting it, as a server does.
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { useHoldfastStream } from "holdfast-client/react";

console.log(renderToString(createElement(() => createElement("i", null, useHoldfastStream("https://gateway").status))));
