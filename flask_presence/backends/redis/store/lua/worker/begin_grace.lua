-- Note that a user's grace period begins, so that some worker ends it.
-- KEYS  1 graces (zset: channel NUL user NUL client -> end, ms) 2 grace_owners (hash: the same -> the client's user)
-- ARGV  1 channel NUL user NUL client 2 milliseconds 3 the client's user
-- Returns {the end, ms}.
local time = redis.call('TIME')
local until_when = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]))
redis.call('ZADD', KEYS[1], until_when, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return {until_when}
