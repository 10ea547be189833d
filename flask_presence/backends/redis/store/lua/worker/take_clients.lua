-- Take the connections of a dead worker: nobody else gets them.
-- KEYS  1 worker_clients (hash: client -> its user)
-- Returns {client, its user, …}.
local found = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
return found
