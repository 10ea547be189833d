-- Renew a worker's lease.
-- KEYS  1 leases (zset: worker -> end, ms) 2 workers (set: all that may have connections)
--       3 data_since (when the data in this Redis began, ms) 4 claims (zset: worker -> end, ms)
--       5 last_start (when a worker of the same host last took its first lease, microseconds) 6 layout
-- ARGV  1 worker 2 milliseconds that the lease lasts 3 '1' for a worker's first heartbeat 4 the layout of the worker
-- Returns {data_since, now in ms, state of the lease, last_start or '', 1 if workers have neither lease nor claim}, or
-- {data_since, now in ms, 'refused', the layout that binds, 0}.
-- The lease is 'held'; 'late' (it had ended, but nobody has claimed the worker, so it is renewed); or 'lost' (Redis does
-- not know the worker, or others are removing it, so it must start again). The worker is 'refused' if others that are
-- alive have another layout. While a worker's lease is held, nobody can change the layout, so it need not be compared.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local data_since = redis.call('GET', KEYS[3])
if not data_since then
  data_since = string.format('%.0f', now)
  redis.call('SET', KEYS[3], data_since)
end
local lease_state, moment = 'held', string.format('%.0f', now)

local function other_layout()
  local layout = redis.call('GET', KEYS[6]) or ''
  if layout == ARGV[4] then return false end
  if redis.call('ZCOUNT', KEYS[1], moment, '+inf') > 0 then return layout end
  if ARGV[4] == '' then redis.call('DEL', KEYS[6]) else redis.call('SET', KEYS[6], ARGV[4]) end
  return false
end

if ARGV[3] == '1' then
  local other = other_layout()
  if other then return {data_since, moment, 'refused', other, 0} end
  -- A time, not a number of starts, because that might be the same again after a loss of data. A worker that does not
  -- read it before it expires has been silent for longer than its own lease, so it does not rely on what it has read.
  redis.call('SET', KEYS[5], string.format('%.0f', time[1] * 1e6 + time[2]), 'PX', ARGV[2])
else
  local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
  local other = (not lease or tonumber(lease) < now) and other_layout()
  if other then return {data_since, moment, 'refused', other, 0} end
  if not lease or redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 or redis.call('ZSCORE', KEYS[4], ARGV[1]) then
    return {data_since, moment, 'lost', '', 0}
  end
  if tonumber(lease) < now then lease_state = 'late' end
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('SADD', KEYS[2], ARGV[1])
local strays = redis.call('SCARD', KEYS[2]) > redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[4])
return {data_since, moment, lease_state, redis.call('GET', KEYS[5]) or '', strays and 1 or 0}
