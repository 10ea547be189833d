-- Read the whole channel, if its list is not too long for one step.
-- KEYS  the channel's five
-- ARGV  1 how many members the list may have
-- Returns {epoch or '', number, when it began or '', connections, members, {user, entry, …} or nothing if it is too long}.
local found, count = redis.call('HMGET', state, 'e', 'q', 'c'), redis.call('HLEN', members)
local list = false
if count <= tonumber(ARGV[1]) then list = redis.call('HGETALL', members) end
return {found[1] or '', found[2] or 0, found[3] or '', redis.call('HLEN', connections), count, list}
