-- Change what a connection's user shows.
-- KEYS  the channel's five
-- ARGV  1 topic 2 known epoch 3 client 4 version that 5 was made from 5 merged document ('': no change)
--       6 client that does not hear of it ('': none)
-- Returns {'ok', epoch, number, entry, changed} | {'merge', entry to merge with} | {'not_found'} | {'not_listed'}
--         | {'not_member'}.
if redis.call('EXISTS', state) == 0 or is_empty() then return {'not_found'} end
local at = epoch(ARGV[2])
local whose = redis.call('HGET', connections, ARGV[3])
if not whose then return {'not_member'} end
local user = split(whose)
local entry = redis.call('HGET', members, user)
if not entry then return {'not_listed'} end
local version, rest = split(entry)
if version ~= ARGV[4] then return {'merge', entry} end
local changed = 0
if ARGV[5] ~= '' then
  changed = 1
  local place = split(rest)
  entry = redis.call('HGET', state, 'q') + 1 .. '\0' .. place .. '\0' .. ARGV[5]
  redis.call('HSET', members, user, entry)
  announce(ARGV[1], 'updated', at, ARGV[6], user, entry)
end
return {'ok', at, redis.call('HGET', state, 'q'), entry, changed}
