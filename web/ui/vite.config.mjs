import { defineConfig } from "vite";

// Assets are relative to `<base href>` in index.html, so the same dist works under any base path the server writes there.
export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    outDir: "dist",
    assetsDir: "assets",
    // Data URIs for scripts or fonts would need a wider Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    // uPlot changes rarely: its own file stays in caches.
    rolldownOptions: { output: { codeSplitting: { groups: [{ name: "uplot", test: /node_modules[\\/]uplot/ }] } } },
  },
  server: {
    proxy: { "/api": process.env.EMBERLINE_API ?? "http://127.0.0.1:4040" },
  },
});
