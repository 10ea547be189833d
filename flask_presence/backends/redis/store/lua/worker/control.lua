-- Send a control message to all workers, and keep it for those that do not hear it now.
-- KEYS  1 control_log (zset: message -> when, ms)
-- ARGV  1 topic 2 message, as it is kept 3 milliseconds for which it is kept 4 message, as it is published if it is sent
--       once more ('': it is sent for the first time)
-- Returns {how many workers heard it}. A message that is still kept is not sent once more.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[3]))
if redis.call('ZADD', KEYS[1], 'NX', now, ARGV[2]) == 0 and ARGV[4] ~= '' then return {0} end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {redis.call('PUBLISH', ARGV[1], ARGV[4] ~= '' and ARGV[4] or ARGV[2])}
