// uWebSockets.js, whose server is C++, with the conversation of the benchmarks: its own topics, no authentication, no
// roster. Started in the directory that has its node_modules: node uws.cjs PORT
"use strict";
const { createRequire } = require("node:module");
const uws = createRequire(`${process.cwd()}/`)("uWebSockets.js");

const decoder = new TextDecoder();
let connections = 0;

function publish(app, sender, request) {
  sender.publish(request.channel, JSON.stringify({
    type: "channel:message",
    channel: request.channel,
    event: "message",
    data: request.data,
    from: { clientId: sender.getUserData().clientId },
    timestamp: new Date().toISOString(),
  }));
  const delivered = app.numSubscribers(request.channel) - 1;
  sender.send(JSON.stringify({ type: "channel:sent", channel: request.channel, delivered }));
}

const app = uws.App();
app.ws("/ws", {
  compression: uws.DISABLED,
  maxBackpressure: 0,
  idleTimeout: 0,
  upgrade(response, request, context) {
    response.upgrade(
      { clientId: `client-${connections++}` },
      request.getHeader("sec-websocket-key"),
      request.getHeader("sec-websocket-protocol"),
      request.getHeader("sec-websocket-extensions"),
      context,
    );
  },
  open(socket) {
    socket.send(JSON.stringify({
      type: "connected", clientId: socket.getUserData().clientId, user: null, timestamp: new Date().toISOString(),
    }));
  },
  message(socket, data) {
    const request = JSON.parse(decoder.decode(data));
    switch (request.type) {
      case "join":
        socket.subscribe(request.channel);
        socket.send(JSON.stringify({ type: "channel:joined", channel: request.channel, channelType: "public" }));
        break;
      case "channel:message":
        publish(app, socket, request);
        break;
      case "ping":
        socket.send(JSON.stringify({ type: "pong", timestamp: Date.now() }));
        break;
    }
  },
});
app.listen("127.0.0.1", Number(process.argv[2]), (listening) => {
  if (!listening) throw new Error("the port cannot be listened on");
});
