-- The channel as it is now.
-- KEYS  the channel's five
-- ARGV  1 '1' where the list is wanted
-- gives {epoch or '', number, when it came to be or '', connections, how many are listed, {user, entry, …}}
local found, list = redis.call('HMGET', state, 'e', 'q', 'c'), {}
if ARGV[1] == '1' then list = redis.call('HGETALL', members) end
return {found[1] or '', found[2] or 0, found[3] or '', redis.call('HLEN', connections), redis.call('HLEN', members), list}
