-- Read the whole channel.
-- KEYS  the channel's five
-- Returns {epoch or '', number, when it began or '', connections, members, {user, entry, …}}.
local found = redis.call('HMGET', state, 'e', 'q', 'c')
return {
  found[1] or '', found[2] or 0, found[3] or '',
  redis.call('HLEN', connections), redis.call('HLEN', members), redis.call('HGETALL', members)
}
