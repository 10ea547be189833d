-- Let a connection in, and list its user if the channel lists users.
-- KEYS  the channel's five, 6 the worker's own connections in it (set)
-- ARGV  1 topic 2 known epoch 3 worker 4 client 5 user ('' if the channel lists none) 6 time of the join
--       7 document for a user who is not listed yet ('' if it would be too large)
--       8 version that 9 was made from ('-': there is nothing to merge, unless a guard owns keys)
--       9 merged document ('': no change) 10 how long a list may be to be returned whole (0: none is wanted)
--       11 how many members there may be ('': any number)
-- Returns {'ok', epoch, number, change, entry, {user, entry, …}} | {'merge', entry to merge with} | {'full'} | {'large'}.
local topic, worker, client, user, listed = ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[5] ~= ''
local at, change, entry = epoch(ARGV[2]), '', ''
use_log()

if listed then
  entry = redis.call('HGET', members, user)
  if not entry then
    if ARGV[11] ~= '' and redis.call('HLEN', members) >= tonumber(ARGV[11]) then return {'full'} end
    if ARGV[7] == '' then return {'large'} end
    change = 'joined'
    local number = redis.call('HGET', state, 'q') + 1
    entry = number .. '\0' .. number .. '\0' .. ARGV[7]
  elseif ARGV[8] ~= '-' or has_owned(entry) then
    local version, rest = split(entry)
    if version ~= ARGV[8] or (ARGV[9] ~= '' and reserved_for_other(user, '')) then return {'merge', entry} end
    if ARGV[9] ~= '' then
      change = 'updated'
      local place = split(rest)
      entry = redis.call('HGET', state, 'q') + 1 .. '\0' .. place .. '\0' .. ARGV[9]
    end
  end
  if change ~= '' then
    redis.call('HSET', members, user, entry)
    announce(topic, change, at, client, user, entry)
  end
  redis.call('ZADD', sessions, 0, user .. '\0' .. client)
  redis.call('HDEL', graces, user)
end
redis.call('HSET', connections, client, user .. '\0' .. worker)
redis.call('SADD', KEYS[6], client)
redis.call('HSETNX', state, 'c', ARGV[6])
redis.call('PERSIST', state)
local list = {}
if redis.call('HLEN', members) <= tonumber(ARGV[10]) then list = redis.call('HGETALL', members) end
return {'ok', at, redis.call('HGET', state, 'q'), change, entry, list}
