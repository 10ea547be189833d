-- Read where the channel stands, for a copy that may have missed something.
-- KEYS  the channel's five, 6 the worker's own connections in it (set)
-- Returns {epoch or '', number, how many connections the worker has in it}.
local found = redis.call('HMGET', state, 'e', 'q')
return {found[1] or '', found[2] or 0, redis.call('SCARD', KEYS[6])}
