-- A node has left a channel, unless it has come back meanwhile.
-- KEYS  1 set of the node's own connections in the channel 2 set of the node's channels
-- ARGV  1 channel
if redis.call('SCARD', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) end
return {}
