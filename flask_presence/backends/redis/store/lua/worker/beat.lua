-- A node says that it is alive.
-- KEYS  1 leases (zset: node -> end, ms) 2 nodes (set: all that may have connections) 3 birth (when these data began, ms)
--       4 claims (zset: node -> end, ms)
-- ARGV  1 node 2 milliseconds that the lease lasts 3 '1' for a node that begins
-- gives {birth, now in ms, verdict}; the verdict is 'held', 'late' (the lease had ended, but nobody has taken the node
-- on: it holds again) or 'lost' (nothing is known of the node, or others reap it: it must begin again as another)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local birth = redis.call('GET', KEYS[3])
if not birth then
  birth = string.format('%.0f', now)
  redis.call('SET', KEYS[3], birth)
end
local verdict, moment = 'held', string.format('%.0f', now)
if ARGV[3] ~= '1' then
  local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if not lease or redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 or redis.call('ZSCORE', KEYS[4], ARGV[1]) then
    return {birth, moment, 'lost'}
  end
  if tonumber(lease) < now then verdict = 'late' end
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('SADD', KEYS[2], ARGV[1])
return {birth, moment, verdict}
