// Builds with the installed package in Vite: node npm_build.mjs PROJECT builds its page with each React, into
// dist/19 and dist/18, its readme.tsx, and programs that each import only one thing. Prints one JSON line:
// the warnings of Vite, and the size of each program in bytes, plain and gzipped, without React.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build, createLogger } from "vite";

const PROGRAMS = {
  decoder: 'import { Decoder } from "holdfast-client"; globalThis.used = Decoder;',
  client: 'import { Gateway } from "holdfast-client"; globalThis.used = Gateway;',
  hook: 'import { useHoldfastStream } from "holdfast-client/react"; globalThis.used = useHoldfastStream;',
};
const REACT = /^react(-dom)?(\/.*)?$/;
const [root] = process.argv.slice(2);
const warnings = [];
const customLogger = createLogger("silent");
for (const level of ["warn", "warnOnce", "error"]) customLogger[level] = (text) => void warnings.push(text);
const common = { root, logLevel: "warn", configFile: false, customLogger, base: "./" };

// React in development mode: its strict mode starts effects twice.
const define = { "process.env.NODE_ENV": '"development"' };
const modules = new URL("./node_modules/", import.meta.url).pathname;
const older = [{ find: /^react(?=$|\/)/, replacement: `${modules}react18` }, { find: /^react-dom(?=$|\/)/, replacement: `${modules}react-dom18` }];
for (const [version, alias] of [["19", []], ["18", older]]) {
  await build({ ...common, define, resolve: { alias }, build: { outDir: `dist/${version}`, emptyOutDir: true } });
}

const sizes = {};
async function size(input) {
  const made = await build({ ...common, build: { write: false, rolldownOptions: { input: join(root, input), external: REACT } } });
  const code = made.output.map((part) => part.code ?? "").join("");
  return { bytes: Buffer.byteLength(code), gzip: gzipSync(code).length };
}
for (const [name, source] of Object.entries(PROGRAMS)) {
  writeFileSync(join(root, `${name}.js`), source);
  sizes[name] = await size(`${name}.js`);
}
await size("readme.tsx");
console.log(JSON.stringify({ warnings, sizes }));
