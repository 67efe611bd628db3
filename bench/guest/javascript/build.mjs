// node build.mjs WIT_FOLDER OUT.wasm: makes a component of filter.js, with nothing of WASI in it.
import { readFile, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [witPath, out] = process.argv.slice(2);
const { component } = await componentize(await readFile(new URL("filter.js", import.meta.url), "utf8"), {
  witPath,
  worldName: "filter",
  disableFeatures: ["random", "stdio", "clocks", "http", "fetch-event"],
});
await writeFile(out, component);
