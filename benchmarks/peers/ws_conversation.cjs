// The conversation of the benchmarks over Node's ws, without authentication and roster. The scripts that use this are
// started in the directory that has their node_modules.
"use strict";
const { createRequire } = require("node:module");

const local = createRequire(`${process.cwd()}/`);
const { WebSocketServer } = local("ws");

function messageText(sender, request) {
  return JSON.stringify({
    type: "channel:message",
    channel: request.channel,
    event: "message",
    data: request.data,
    from: { clientId: sender.clientId },
    timestamp: new Date().toISOString(),
  });
}

function sendJoined(socket, channel) {
  socket.send(JSON.stringify({ type: "channel:joined", channel, channelType: "public" }));
}

/* Serve at a port. `join(socket, channel)` and `publish(socket, request)` answer; `leave(socket)` is called at the end. */
function serve({ port, prefix, join, publish, leave }) {
  const server = new WebSocketServer({ host: "127.0.0.1", port, backlog: 2048, perMessageDeflate: false });
  let connections = 0;

  function handle(socket, request) {
    switch (request.type) {
      case "join":
        join(socket, request.channel);
        break;
      case "channel:message":
        publish(socket, request);
        break;
      case "ping":
        socket.send(JSON.stringify({ type: "pong", timestamp: Date.now() }));
        break;
    }
  }

  server.on("connection", (socket) => {
    socket.clientId = `${prefix}-${connections++}`;
    socket.joined = new Set();
    socket.on("message", (data) => handle(socket, JSON.parse(data)));
    socket.on("close", () => leave(socket));
    socket.on("error", () => socket.terminate());
    socket.send(JSON.stringify({
      type: "connected", clientId: socket.clientId, user: null, timestamp: new Date().toISOString(),
    }));
  });
}

module.exports = { local, messageText, sendJoined, serve };
