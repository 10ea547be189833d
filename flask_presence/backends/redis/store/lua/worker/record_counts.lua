-- Record what a worker has counted, unless it is removed or claimed: then its last record has been absorbed.
-- KEYS  1 worker_counts 2 absorbed_counts 3 absorbed_traffic (see absorb_counts) 4 workers (set) 5 claims (zset)
-- ARGV  1 worker 2 reading (JSON) 3 seconds for which all of this is kept
-- Returns 1 if it was recorded, else 0.
if redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 0 or redis.call('ZSCORE', KEYS[5], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for at = 1, 3 do redis.call('EXPIRE', KEYS[at], ARGV[3]) end
return 1
