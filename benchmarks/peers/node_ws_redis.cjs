// Node's ws over Redis, as a team writes it in an afternoon: every server publishes with ioredis, whose automatic
// pipelining puts the commands of one turn together, and sends what it hears to its own members. No order, no count over
// all servers, no roster. Started in the directory that has its node_modules: node node_ws_redis.cjs PORT
"use strict";
const { local, messageText, sendJoined, serve } = require("./ws_conversation.cjs");
const { Redis } = local("ioredis");

const channels = new Map();
const commands = new Redis(process.env.BENCHMARK_REDIS, { enableAutoPipelining: true });
const subscriber = new Redis(process.env.BENCHMARK_REDIS);

async function join(socket, name) {
  let members = channels.get(name);
  if (members === undefined) {
    channels.set(name, (members = { sockets: new Set(), subscribed: subscriber.subscribe(name) }));
  }
  await members.subscribed;
  members.sockets.add(socket);
  socket.joined.add(name);
  sendJoined(socket, name);
}

async function publish(sender, request) {
  await commands.publish(request.channel, `${sender.clientId}\n${messageText(sender, request)}`);
  sender.send(JSON.stringify({ type: "channel:sent", channel: request.channel }));
}

function leave(socket) {
  for (const name of socket.joined) channels.get(name).sockets.delete(socket);
}

subscriber.on("message", (name, message) => {
  const at = message.indexOf("\n");
  const clientId = message.slice(0, at);
  const frame = Buffer.from(message.slice(at + 1));
  for (const socket of channels.get(name)?.sockets ?? []) {
    if (socket.clientId !== clientId) socket.send(frame, { binary: false });
  }
});

serve({ port: Number(process.argv[2]), prefix: `client-${process.pid}`, join, publish, leave });
