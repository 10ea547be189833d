-- A user is held no longer.
-- KEYS  the channel's five
-- ARGV  1 topic 2 known epoch 3 user
-- gives {'ok', epoch, number, entry of a user who has left or ''}
local at = epoch(ARGV[2])
redis.call('HDEL', held, ARGV[3])
local entry = drop(ARGV[1], at, '', ARGV[3])
close_if_empty()
return {'ok', at, redis.call('HGET', state, 'q'), entry}
