-- Take the connections of a dead worker, so that no other worker takes them too.
-- KEYS  1 worker_clients (hash: client -> its user)
-- Returns {client, its user, …}.
local found = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
return found
