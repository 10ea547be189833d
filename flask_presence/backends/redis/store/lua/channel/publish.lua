-- Send a message to all connections in the channel but one.
-- KEYS  the channel's five
-- ARGV  1 topic 2 known epoch ('0' if the sender is not in the channel) 3 client to leave out ('': none) 4 message
-- Returns {epoch, number, how many connections it goes to} | {'lost'} if the channel that the caller knows is gone.
local at = epoch(ARGV[2])
if ARGV[2] ~= '0' and ARGV[2] ~= at then return {'lost'} end
local number = announce(ARGV[1], 'message', at, ARGV[3], '', ARGV[4])
return {at, number, redis.call('HLEN', connections) - redis.call('HEXISTS', connections, ARGV[3])}
