-- Note that a channel keeps messages, and forget the channels whose messages have expired.
-- KEYS  1 histories (zset: channel -> until when it may keep messages, ms)
-- ARGV  1 channel 2 for how many seconds it may keep messages
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now))
redis.call('ZADD', KEYS[1], 'GT', string.format('%.0f', now + ARGV[2] * 1000), ARGV[1])
redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
return {}
