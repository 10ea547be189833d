// Node's ws with the conversation of the benchmarks: rooms in a Map, no authentication, no roster.
// Started in the directory that has its node_modules: node node_ws.cjs PORT
"use strict";
const { createRequire } = require("node:module");
const { WebSocketServer } = createRequire(`${process.cwd()}/`)("ws");

const channels = new Map();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 2048,
  perMessageDeflate: false,
});
let connections = 0;

function membersOf(name) {
  let members = channels.get(name);
  if (members === undefined) channels.set(name, (members = new Set()));
  return members;
}

function publish(sender, request) {
  const members = membersOf(request.channel);
  const frame = Buffer.from(JSON.stringify({
    type: "channel:message",
    channel: request.channel,
    event: "message",
    data: request.data,
    from: { clientId: sender.clientId },
    timestamp: new Date().toISOString(),
  }));
  for (const member of members) if (member !== sender) member.send(frame, { binary: false });
  sender.send(JSON.stringify({ type: "channel:sent", channel: request.channel, delivered: members.size - 1 }));
}

function handle(socket, request) {
  switch (request.type) {
    case "join":
      membersOf(request.channel).add(socket);
      socket.joined.add(request.channel);
      socket.send(JSON.stringify({ type: "channel:joined", channel: request.channel, channelType: "public" }));
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
  socket.clientId = `client-${connections++}`;
  socket.joined = new Set();
  socket.on("message", (data) => handle(socket, JSON.parse(data)));
  socket.on("close", () => {
    for (const name of socket.joined) membersOf(name).delete(socket);
  });
  socket.on("error", () => socket.terminate());
  socket.send(JSON.stringify({
    type: "connected", clientId: socket.clientId, user: null, timestamp: new Date().toISOString(),
  }));
});
