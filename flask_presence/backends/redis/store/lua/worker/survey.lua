-- What all nodes have counted, at one moment.
-- KEYS  1 readings 2 leases (zset: node -> end, ms) 3 counts 4 slots (as in fold) 5 birth (when these data began, ms)
-- gives {{node, …} that are alive, {node, reading, …}, {name, number, …}, {slot, number, …}, birth or ''}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {
  redis.call('ZRANGEBYSCORE', KEYS[2], now, '+inf'), redis.call('HGETALL', KEYS[1]),
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('GET', KEYS[5]) or ''
}
