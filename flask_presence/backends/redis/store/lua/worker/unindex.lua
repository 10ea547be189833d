-- Take a channel off the list of a worker's channels, unless the worker has connections in it.
-- KEYS  1 the worker's own connections in the channel (set) 2 the worker's channels (set)
-- ARGV  1 channel
if redis.call('SCARD', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) end
return {}
