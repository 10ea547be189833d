// Node's ws with the conversation of the benchmarks: rooms in a Map, no authentication, no roster.
// Started in the directory that has its node_modules: node node_ws.cjs PORT
"use strict";
const { messageText, sendJoined, serve } = require("./ws_conversation.cjs");

const channels = new Map();

function membersOf(name) {
  let members = channels.get(name);
  if (members === undefined) channels.set(name, (members = new Set()));
  return members;
}

function join(socket, name) {
  membersOf(name).add(socket);
  socket.joined.add(name);
  sendJoined(socket, name);
}

function publish(sender, request) {
  const members = membersOf(request.channel);
  const frame = Buffer.from(messageText(sender, request));
  for (const member of members) if (member !== sender) member.send(frame, { binary: false });
  sender.send(JSON.stringify({ type: "channel:sent", channel: request.channel, delivered: members.size - 1 }));
}

function leave(socket) {
  for (const name of socket.joined) membersOf(name).delete(socket);
}

serve({ port: Number(process.argv[2]), prefix: "client", join, publish, leave });
