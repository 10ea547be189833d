-- Read what all workers have counted, at one moment.
-- KEYS  1 worker_counts 2 leases (zset: worker -> end, ms) 3 absorbed_counts 4 absorbed_traffic (see absorb_counts)
--       5 data_since (when the data in this Redis began, ms)
-- Returns {{worker, …} that are alive, {worker, reading, …}, {name, number, …}, {slot, number, …}, data_since or ''}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {
  redis.call('ZRANGEBYSCORE', KEYS[2], now, '+inf'), redis.call('HGETALL', KEYS[1]),
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('GET', KEYS[5]) or ''
}
