-- The connections of a dead node, for one who buries it; nobody else gets them.
-- KEYS  1 clients (hash: client -> whose it is)
-- gives {client, whose, …}
local found = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
return found
