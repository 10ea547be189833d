-- Take grace periods that are over, so that no other worker ends them for a while.
-- KEYS  1 graces (zset: channel NUL user NUL client -> end, ms)
-- ARGV  1 now, ms 2 the maximum number 3 until when they are taken, ms
-- Returns {channel NUL user NUL client, …}.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local changed = {}
for _, grace in ipairs(due) do
  changed[#changed + 1] = ARGV[3]
  changed[#changed + 1] = grace
end
if #due > 0 then redis.call('ZADD', KEYS[1], unpack(changed)) end
return due
