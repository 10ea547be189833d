-- What `announce` of common.lua is in a cluster. Nobody can subscribe to a pattern of shard channels, so changes of lists
-- are published once more for those who watch all channels: after the channel's topic, on the topic of all changes.
local function announce(topic, kind, at, client, user, body, reason)
  local number = redis.call('HINCRBY', state, 'q', 1)
  local event = table.concat({kind, at, number, client, user, reason or '', body}, '\0')
  redis.call('PUBLISH', topic, event)
  if kind ~= 'message' then
    redis.call('PUBLISH', string.match(topic, '^[^}]*}:%d+') .. ':changes', topic .. '\0' .. event)
  end
  return number
end
