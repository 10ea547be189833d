// The WebSocket server of s3db.js's WebSocket plugin, with its channels, its presence and its JWT driver.
//
// Started in the directory that has its node_modules: node s3db.mjs PORT
//
// The class is the one that the plugin starts, with the options that the plugin gives it; channels live in its
// memory, so no database is opened. The package's other dependencies are not installed: some of the versions that
// it names are not on the npm registry, and the plugin imports none of them.
import { pathToFileURL } from "node:url";

const module = `${process.cwd()}/node_modules/s3db.js/dist/plugins/websocket/server.js`;
const { WebSocketServer } = await import(pathToFileURL(module));

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  auth: {
    required: false,
    drivers: [{ driver: "jwt", config: { secret: process.env.BENCHMARK_SECRET } }],
  },
  channels: { enabled: true, guards: { "*": (user) => Boolean(user?.id) } },
  rateLimit: { enabled: false },
  startupBanner: false,
});
await server.start();
