-- A connection comes in; its user is listed where the channel lists users.
-- KEYS  the channel's five, 6 set of the node's own connections
-- ARGV  1 topic 2 known epoch 3 node 4 client 5 user ('' where users are not listed) 6 when
--       7 document for a user who is not listed yet ('' where that one would be too large)
--       8 version with which 9 was made ('-': there is nothing to merge, unless something is owned) 9 document merged ('': no change)
--       10 '1' where the list is wanted
-- gives {'ok', epoch, number, change, entry, {user, entry, …}} | {'merge', entry}: merge with this one | {'large'}
local topic, node, client, user, listed = ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[5] ~= ''
local at, change, entry = epoch(ARGV[2]), '', ''

if listed then
  entry = redis.call('HGET', members, user)
  if not entry then
    if ARGV[7] == '' then return {'large'} end
    change = 'joined'
    local number = redis.call('HGET', state, 'q') + 1
    entry = number .. '\0' .. number .. '\0' .. ARGV[7]
  elseif ARGV[8] ~= '-' or has_owned(entry) then
    local version, rest = split(entry)
    if version ~= ARGV[8] then return {'merge', entry} end
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
  redis.call('HDEL', held, user)
end
redis.call('HSET', connections, client, user .. '\0' .. node)
redis.call('SADD', KEYS[6], client)
redis.call('HSETNX', state, 'c', ARGV[6])
redis.call('PERSIST', state)
local list = {}
if ARGV[10] == '1' then list = redis.call('HGETALL', members) end
return {'ok', at, redis.call('HGET', state, 'q'), change, entry, list}
