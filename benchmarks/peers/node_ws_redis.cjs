// Node's ws over Redis, as a team writes it in an afternoon: every server publishes with ioredis, whose automatic
// pipelining puts the commands of one turn together, and sends what it hears to its own members. No order, no count over
// all servers, no roster. Started in the directory that has its node_modules: node node_ws_redis.cjs PORT
"use strict";
const { createRequire } = require("node:module");
const local = createRequire(`${process.cwd()}/`);
const { WebSocketServer } = local("ws");
const { Redis } = local("ioredis");

const commands = new Redis(process.env.BENCHMARK_REDIS, { enableAutoPipelining: true });
const subscriber = new Redis(process.env.BENCHMARK_REDIS);
const channels = new Map();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 2048,
  perMessageDeflate: false,
});
let connections = 0;

async function join(socket, name) {
  let members = channels.get(name);
  if (members === undefined) {
    channels.set(name, (members = { sockets: new Set(), subscribed: subscriber.subscribe(name) }));
  }
  await members.subscribed;
  members.sockets.add(socket);
  socket.joined.add(name);
  socket.send(JSON.stringify({ type: "channel:joined", channel: name, channelType: "public" }));
}

async function publish(sender, request) {
  const text = JSON.stringify({
    type: "channel:message",
    channel: request.channel,
    event: "message",
    data: request.data,
    from: { clientId: sender.clientId },
    timestamp: new Date().toISOString(),
  });
  await commands.publish(request.channel, `${sender.clientId}\n${text}`);
  sender.send(JSON.stringify({ type: "channel:sent", channel: request.channel }));
}

subscriber.on("message", (name, message) => {
  const at = message.indexOf("\n");
  const clientId = message.slice(0, at);
  const frame = Buffer.from(message.slice(at + 1));
  for (const socket of channels.get(name)?.sockets ?? []) {
    if (socket.clientId !== clientId) socket.send(frame, { binary: false });
  }
});

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
  socket.clientId = `client-${process.pid}-${connections++}`;
  socket.joined = new Set();
  socket.on("message", (data) => handle(socket, JSON.parse(data)));
  socket.on("close", () => {
    for (const name of socket.joined) channels.get(name).sockets.delete(socket);
  });
  socket.on("error", () => socket.terminate());
  socket.send(JSON.stringify({
    type: "connected", clientId: socket.clientId, user: null, timestamp: new Date().toISOString(),
  }));
});
