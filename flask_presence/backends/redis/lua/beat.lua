-- A node says that it is alive.
-- KEYS  1 leases (zset: node -> end, ms) 2 nodes (set: all that may have connections) 3 birth (when these data began, ms)
-- ARGV  1 node 2 milliseconds that the lease lasts 3 '1' for a node that begins
-- gives {birth, 1} | {birth, 0}: the lease had ended, others may have reaped the node; it must begin again as another
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local birth = redis.call('GET', KEYS[3])
if not birth then
  birth = string.format('%.0f', now)
  redis.call('SET', KEYS[3], birth)
end
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[3] ~= '1' and (not lease or tonumber(lease) < now) then return {birth, 0} end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('SADD', KEYS[2], ARGV[1])
return {birth, 1}
