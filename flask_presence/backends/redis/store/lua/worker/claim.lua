-- Claim a dead worker, so that only one other worker removes it. Removing it twice would do no harm.
-- KEYS  1 leases 2 workers 3 data_since 4 claims (zset: worker -> end, ms)
-- ARGV  1 milliseconds that a claim lasts 2 milliseconds that a lease lasts 3 milliseconds for which a lease must have
--       ended ('': leases do not count), then the workers that are known to be dead, whatever their lease
-- Returns a worker, or nothing.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = {}
for at = 4, #ARGV do known[ARGV[at]] = true end
local data_since = redis.call('GET', KEYS[3])
-- After a loss of data, every worker gets the time of one lease to come back.
local by_lease = ARGV[3] ~= '' and data_since and now - tonumber(data_since) >= tonumber(ARGV[2])
for _, worker in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local dead = known[worker]
  if not dead and by_lease then
    local lease = redis.call('ZSCORE', KEYS[1], worker)
    dead = not lease or tonumber(lease) + tonumber(ARGV[3]) < now
  end
  local claim = redis.call('ZSCORE', KEYS[4], worker)
  if dead and (not claim or tonumber(claim) < now) then
    redis.call('ZREM', KEYS[1], worker)
    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[1]), worker)
    return worker
  end
end
return false
