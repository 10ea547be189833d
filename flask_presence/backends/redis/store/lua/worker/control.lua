-- Send a control message to all workers, and keep it for those that do not hear it now.
-- KEYS  1 control_log (zset: message -> when, ms)
-- ARGV  1 topic 2 message 3 milliseconds for which it is kept
-- Returns {how many workers heard it}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[3]))
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {redis.call('PUBLISH', ARGV[1], ARGV[2])}
