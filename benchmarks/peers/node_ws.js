// Node's ws: each message is serialised once and sent to each client of the room.
const { WebSocketServer } = require(process.argv[3] + '/node_modules/ws');

const rooms = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]), perMessageDeflate: false });

server.on('connection', (socket) => {
  const joined = new Set();
  socket.send(JSON.stringify({ type: 'connected' }));
  socket.on('message', (text) => {
    const { type, channel, event, data, requestId } = JSON.parse(text);
    if (type === 'join') {
      if (!rooms.has(channel)) rooms.set(channel, new Set());
      rooms.get(channel).add(socket);
      joined.add(channel);
      socket.send(JSON.stringify({ type: 'channel:joined', channel, requestId }));
    } else if (type === 'ping') {
      socket.send(JSON.stringify({ type: 'pong', requestId, timestamp: Date.now() }));
    } else {
      const out = JSON.stringify({ type, channel, event, data, timestamp: new Date().toISOString() });
      const room = rooms.get(channel);
      for (const other of room) if (other !== socket) other.send(out);
      socket.send(JSON.stringify({ type: 'channel:sent', channel, requestId, delivered: room.size - 1 }));
    }
  });
  socket.on('close', () => joined.forEach((channel) => rooms.get(channel).delete(socket)));
});
