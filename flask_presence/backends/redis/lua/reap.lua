-- Take some of a dead node's connections out of a channel, and announce who has left with them.
-- KEYS  the channel's five, 6 set of the dead node's own connections
-- ARGV  1 topic 2 known epoch 3 how many at the most
-- gives {connections taken out, users who have left}
local at = epoch(ARGV[2])
local taken, gone = redis.call('SPOP', KEYS[6], ARGV[3]), 0
for _, client in ipairs(taken) do
  local whose = redis.call('HGET', connections, client)
  if whose then
    redis.call('HDEL', connections, client)
    local user = split(whose)
    if user ~= '' then
      redis.call('ZREM', sessions, user .. '\0' .. client)
      if drop(ARGV[1], at, '', user) ~= '' then gone = gone + 1 end
    end
  end
end
close_if_empty()
return {#taken, gone}
