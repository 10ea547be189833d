-- Change the list's entry of a connection's user.
-- KEYS  the channel's five
-- ARGV  1 topic 2 known epoch 3 client 4 version that 5 was made from ('-': there is nothing to merge, unless a guard owns
--       keys) 5 merged document ('': no change) 6 client that does not hear of it ('': none)
--       7 '' or an id: if somebody else has changed the member meanwhile, reserve it for the caller with that id
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
local is_free = not reserved_for_other(user, ARGV[7])
if ARGV[4] == '-' and not has_owned(entry) then
  return {'ok', at, redis.call('HGET', state, 'q'), entry, 0}
elseif version ~= ARGV[4] or not is_free then
  if ARGV[7] ~= '' and is_free and ARGV[4] ~= '' and ARGV[4] ~= '-' then reserve(user, ARGV[7]) end
  return {'merge', entry}
end
if ARGV[7] ~= '' then redis.call('HDEL', state, 'r' .. user) end
local changed = 0
if ARGV[5] ~= '' then
  changed = 1
  local place = split(rest)
  entry = redis.call('HGET', state, 'q') + 1 .. '\0' .. place .. '\0' .. ARGV[5]
  redis.call('HSET', members, user, entry)
  announce(ARGV[1], 'updated', at, ARGV[6], user, entry)
end
return {'ok', at, redis.call('HGET', state, 'q'), entry, changed}
