-- Where the channel stands, for a copy that might have missed something.
-- KEYS  the channel's five, 6 set of the node's own connections
-- gives {epoch or '', number, connections in 6}
local found = redis.call('HMGET', state, 'e', 'q')
return {found[1] or '', found[2] or 0, redis.call('SCARD', KEYS[6])}
