-- Bring back a worker's connections that may have been lost here, as they were.
-- KEYS  the channel's five, 6 the worker's own connections in it (set)
-- ARGV  1 topic 2 known epoch 3 the next event's number is above this 4 time of the restore 5 worker
--       6 '1' if the clients in KEYS[6] are wanted,
--       then for each connection: client, user ('' if the channel lists none), place and document of the user
-- Returns {1 if the channel has lost changes that the caller knows (as with an old copy of its data), else 0, then the
-- clients in KEYS[6], if they are wanted}.
local topic, at, is_older = ARGV[1], epoch(ARGV[2]), 0
use_log()
if tonumber(redis.call('HGET', state, 'q')) < tonumber(ARGV[3]) then
  redis.call('HSET', state, 'q', ARGV[3])
  if at == ARGV[2] then
    is_older = 1
    doubt_log()
  end
end
for first = 7, #ARGV, 4 do
  local client, user, place, document = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
  if user ~= '' then
    if redis.call('HEXISTS', members, user) == 0 then
      local entry = redis.call('HGET', state, 'q') + 1 .. '\0' .. place .. '\0' .. document
      redis.call('HSET', members, user, entry)
      announce(topic, 'joined', at, '', user, entry)
    end
    redis.call('ZADD', sessions, 0, user .. '\0' .. client)
    redis.call('HDEL', graces, user)
  end
  redis.call('HSET', connections, client, user .. '\0' .. ARGV[5])
  redis.call('SADD', KEYS[6], client)
end
if #ARGV > 6 then
  redis.call('HSETNX', state, 'c', ARGV[4])
  redis.call('PERSIST', state)
end
local reply = ARGV[6] == '1' and redis.call('SMEMBERS', KEYS[6]) or {}
table.insert(reply, 1, is_older)
return reply
