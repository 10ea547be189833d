-- The channel as it is now.
-- KEYS  the channel's five
-- gives {epoch or '', number, when it came to be or '', connections, how many are listed, {user, entry, …}}
local found = redis.call('HMGET', state, 'e', 'q', 'c')
return {
  found[1] or '', found[2] or 0, found[3] or '',
  redis.call('HLEN', connections), redis.call('HLEN', members), redis.call('HGETALL', members)
}
