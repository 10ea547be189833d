-- What a node has counted, unless it is none any more, or others see to it: they have added up what it had posted.
-- KEYS  1 readings 2 counts 3 slots (as in fold) 4 nodes (set) 5 claims (zset)
-- ARGV  1 node 2 reading (JSON) 3 seconds that all this is kept for
-- gives whether it was taken
if redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 0 or redis.call('ZSCORE', KEYS[5], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for at = 1, 3 do redis.call('EXPIRE', KEYS[at], ARGV[3]) end
return 1
