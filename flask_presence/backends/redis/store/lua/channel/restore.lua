-- Connections that a node has, and that may have been lost here, come back as they were.
-- KEYS  the channel's five, 6 set of the node's own connections
-- ARGV  1 topic 2 known epoch 3 number that the next event is to be above 4 when 5 node,
--       then for each connection: client, user ('' where users are not listed), place and document of the user
-- gives the clients in 6
local topic, at = ARGV[1], epoch(ARGV[2])
if tonumber(redis.call('HGET', state, 'q')) < tonumber(ARGV[3]) then redis.call('HSET', state, 'q', ARGV[3]) end
for first = 6, #ARGV, 4 do
  local client, user, place, document = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
  if user ~= '' then
    if redis.call('HEXISTS', members, user) == 0 then
      local entry = redis.call('HGET', state, 'q') + 1 .. '\0' .. place .. '\0' .. document
      redis.call('HSET', members, user, entry)
      announce(topic, 'joined', at, '', user, entry)
    end
    redis.call('ZADD', sessions, 0, user .. '\0' .. client)
    redis.call('HDEL', held, user)
  end
  redis.call('HSET', connections, client, user .. '\0' .. ARGV[5])
  redis.call('SADD', KEYS[6], client)
end
if #ARGV > 5 then
  redis.call('HSETNX', state, 'c', ARGV[4])
  redis.call('PERSIST', state)
end
return redis.call('SMEMBERS', KEYS[6])
