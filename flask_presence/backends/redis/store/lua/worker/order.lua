-- Tell all nodes what to do, those too who do not hear it now.
-- KEYS  1 orders (zset: order -> when, ms)
-- ARGV  1 topic 2 order 3 milliseconds after which it is nobody's business any more
-- gives {nodes that heard it}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[3]))
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {redis.call('PUBLISH', ARGV[1], ARGV[2])}
