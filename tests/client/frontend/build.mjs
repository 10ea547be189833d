// Bundles the files that the arguments name into `built/`, as a frontend's build step would. Plays the role of Vite's
// plugin for Vue's single-file components.
import {readFile} from "node:fs/promises";
import esbuild from "esbuild";
import {compileScript, parse} from "vue/compiler-sfc";

const singleFileComponents = {
  name: "vue",
  setup(build) {
    build.onLoad({filter: /\.vue$/}, async ({path}) => {
      const {descriptor} = parse(await readFile(path, "utf8"), {filename: path});
      const {content} = compileScript(descriptor, {id: path, inlineTemplate: true});
      return {contents: content, loader: "ts"};
    });
  },
};

await esbuild.build({
  entryPoints: process.argv.slice(2),
  outdir: "built",
  entryNames: "[name]",
  bundle: true,
  format: "esm",
  jsx: "automatic",
  define: {
    "process.env.NODE_ENV": '"development"', // with production's, StrictMode mounts once
    __VUE_OPTIONS_API__: "false",
    __VUE_PROD_DEVTOOLS__: "false",
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
  },
  plugins: [singleFileComponents],
  logLevel: "warning",
});
