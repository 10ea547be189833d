-- Write down that a user is about to be held, so that somebody lets them go.
-- KEYS  1 holds (zset: channel NUL user NUL client -> end, ms) 2 holders (hash: the same -> whose the connection was)
-- ARGV  1 channel NUL user NUL client 2 milliseconds 3 whose the connection was
-- gives {the end}
local time = redis.call('TIME')
local until_when = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]))
redis.call('ZADD', KEYS[1], until_when, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return {until_when}
