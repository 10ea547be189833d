// Socket.IO with its Redis adapter and its own rooms. The events have the names of the protocol's types.
// Started in the directory that has its node_modules: node node_socketio_redis.cjs PORT
"use strict";
const { createRequire } = require("node:module");
const { createServer } = require("node:http");
const local = createRequire(`${process.cwd()}/`);
const { Server } = local("socket.io");
const { createAdapter } = local("@socket.io/redis-adapter");
const { Redis } = local("ioredis");

const http = createServer((_request, response) => response.end("yes"));
const server = new Server(http, {
  adapter: createAdapter(new Redis(process.env.BENCHMARK_REDIS), new Redis(process.env.BENCHMARK_REDIS)),
  perMessageDeflate: false,
  serveClient: false,
});

server.on("connection", (socket) => {
  socket.on("join", async ({ channel }) => {
    await socket.join(channel);
    socket.emit("channel:joined", { type: "channel:joined", channel, channelType: "public" });
  });
  socket.on("channel:message", ({ channel, data }) => {
    socket.to(channel).emit("channel:message", {
      type: "channel:message",
      channel,
      event: "message",
      data,
      from: { clientId: socket.id },
      timestamp: new Date().toISOString(),
    });
    socket.emit("channel:sent", { type: "channel:sent", channel });
  });
  socket.on("ping", () => socket.emit("pong", { type: "pong", timestamp: Date.now() }));
});
http.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 2048 });
