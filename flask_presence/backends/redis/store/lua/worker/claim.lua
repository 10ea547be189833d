-- Claim a dead worker, so that only one other worker removes it. Removing it twice would do no harm.
-- KEYS  1 leases 2 workers 3 data_since 4 claims (zset: worker -> end, ms)
-- ARGV  1 milliseconds that a claim lasts 2 milliseconds that a lease lasts 3 milliseconds for which a lease must have
--       ended ('': leases do not count), then the workers that are known to be dead, whatever their lease
-- Returns a worker, or nothing.
--
-- Every worker calls this once per heartbeat, so it must not look at every worker: it looks up ended leases and claims
-- by their scores, and reads `workers` only if some worker has neither.
local PAGE = 20
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function listed(worker) return redis.call('SISMEMBER', KEYS[2], worker) == 1 end

local function being_removed(worker)
  local claim = redis.call('ZSCORE', KEYS[4], worker)
  return claim and tonumber(claim) >= now
end

local function claim(worker)
  redis.call('ZREM', KEYS[1], worker)
  redis.call('ZADD', KEYS[4], now + tonumber(ARGV[1]), worker)
  return worker
end

local function before(key, moment, skipped)
  return redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. string.format('%.0f', moment), 'LIMIT', skipped, PAGE)
end

for at = 4, #ARGV do
  if listed(ARGV[at]) and not being_removed(ARGV[at]) then return claim(ARGV[at]) end
end

-- After a loss of data, every worker gets the time of one lease to come back.
local data_since = redis.call('GET', KEYS[3])
if ARGV[3] == '' or not data_since or now - tonumber(data_since) < tonumber(ARGV[2]) then return false end

-- An ended lease that leads to no claim is deleted, or it would be in the way of later ones. That changes nothing: its
-- worker is not listed or has a claim, so its next heartbeat is 'lost' with and without the lease.
local found
repeat
  found = before(KEYS[1], now - tonumber(ARGV[3]), 0)
  for _, worker in ipairs(found) do
    if listed(worker) and not being_removed(worker) then return claim(worker) end
    redis.call('ZREM', KEYS[1], worker)
  end
until #found < PAGE

-- A claim has ended if the removal takes more than one round, or if the worker that began it died. A claimed worker with
-- a lease has begun again with the same id, after a loss of data, so it is dead only when that lease has ended.
local skipped, claims = 0, redis.call('ZCARD', KEYS[4])
while claims > skipped do
  found = before(KEYS[4], now, skipped)
  for _, worker in ipairs(found) do
    if not listed(worker) then
      claims = claims - redis.call('ZREM', KEYS[4], worker)
    elseif redis.call('ZSCORE', KEYS[1], worker) then
      skipped = skipped + 1
    else
      return claim(worker)
    end
  end
  if #found < PAGE then break end
end

-- A worker without a lease and a claim was listed again by commands that it sent before it was removed, or has given up
-- its id. If there are more workers than leases and claims together, there is one. The converse fails while something
-- else is counted too: a lease or a claim of a worker that is not listed, or both of one worker. Each hides one worker,
-- but not for long. Such a lease is never renewed, because the heartbeat of a worker that is not listed or has a claim
-- is 'lost'; so it ends, and is deleted above. Such a claim ends too, and is deleted or leads to another removal, whose
-- last step deletes it.
if redis.call('SCARD', KEYS[2]) > redis.call('ZCARD', KEYS[1]) + claims then
  for _, worker in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    if not redis.call('ZSCORE', KEYS[1], worker) and not redis.call('ZSCORE', KEYS[4], worker) then
      return claim(worker)
    end
  end
end
return false
