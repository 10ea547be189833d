-- Take on a node whose lease has ended, so that not everybody reaps it at once. Reaping twice would do no harm.
-- KEYS  1 leases 2 nodes 3 birth 4 claims (zset: node -> end, ms)
-- ARGV  1 milliseconds that a claim lasts 2 milliseconds that a lease lasts
-- gives a node, or nothing
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local birth = redis.call('GET', KEYS[3])
-- When data were lost every node needs the time of one lease to come back.
if not birth or now - tonumber(birth) < tonumber(ARGV[2]) then return false end
for _, node in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local lease = redis.call('ZSCORE', KEYS[1], node)
  local claim = redis.call('ZSCORE', KEYS[4], node)
  if (not lease or tonumber(lease) < now) and (not claim or tonumber(claim) < now) then
    redis.call('ZREM', KEYS[1], node)
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[1]), node)
    return node
  end
end
return false
