-- Take on a node that is dead, so that not everybody reaps it at once. Reaping twice would do no harm.
-- KEYS  1 leases 2 nodes 3 birth 4 claims (zset: node -> end, ms)
-- ARGV  1 milliseconds that a claim lasts 2 milliseconds that a lease lasts 3 milliseconds for which a lease must have
--       ended ('': whoever has no lease is left alone), then nodes that are known to be dead, whatever their lease
-- gives a node, or nothing
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = {}
for at = 4, #ARGV do known[ARGV[at]] = true end
local birth = redis.call('GET', KEYS[3])
-- When data were lost every node needs the time of one lease to come back.
local by_lease = ARGV[3] ~= '' and birth and now - tonumber(birth) >= tonumber(ARGV[2])
for _, node in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local dead = known[node]
  if not dead and by_lease then
    local lease = redis.call('ZSCORE', KEYS[1], node)
    dead = not lease or tonumber(lease) + tonumber(ARGV[3]) < now
  end
  local claim = redis.call('ZSCORE', KEYS[4], node)
  if dead and (not claim or tonumber(claim) < now) then
    redis.call('ZREM', KEYS[1], node)
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[1]), node)
    return node
  end
end
return false
