-- A message to all connections in the channel but one.
-- KEYS  the channel's five
-- ARGV  1 topic 2 known epoch 3 client that is left out ('': none) 4 message
-- gives {epoch, number, connections that it is for}
local at = epoch(ARGV[2])
local number = announce(ARGV[1], 'message', at, ARGV[3], '', ARGV[4])
local count = redis.call('HLEN', connections) - redis.call('HEXISTS', connections, ARGV[3])
close_if_empty()
return {at, number, count}
