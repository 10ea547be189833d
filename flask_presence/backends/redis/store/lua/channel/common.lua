-- What the scripts share. All that a client has said is in ARGV, never in a script's text; JSON is bytes here.
--
-- A channel is
--   state        hash: e epoch, q last number given out, c when the channel came to be (text of the caller)
--   members      hash: user -> version NUL place NUL document; both numbers are the channel's
--   connections  hash: client -> user NUL node
--   sessions     zset, all scores 0: user NUL client, of presence channels, so that a user's are counted in O(log n)
--   held         hash: user -> until when NUL reason, of users who stay listed without a connection
-- Its numbers begin anew, with a larger epoch, when Redis has lost them. Its state expires unless somebody is in it.

local state, members, connections, sessions, held = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function split(value)
  local at = string.find(value, '\0', 1, true)
  return string.sub(value, 1, at - 1), string.sub(value, at + 1)
end

-- Whether a guard owns something of a member: their document then begins with a space.
local function has_owned(entry)
  return string.find(entry, '\0 {', 1, true) ~= nil
end

-- The channel's epoch. `known` is the newest that the caller has seen.
local function epoch(known)
  local current = redis.call('HGET', state, 'e')
  if current then return current end
  local time = redis.call('TIME')
  local new = time[1] * 1000 + math.floor(time[2] / 1000)
  if new <= tonumber(known) then new = tonumber(known) + 1 end
  current = string.format('%.0f', new)
  redis.call('DEL', members, connections, sessions, held)
  redis.call('HSET', state, 'e', current, 'q', 0)
  redis.call('EXPIRE', state, 300)
  return current
end

-- Number an event and publish it: kind, epoch, number, client that must not hear it, user, reason, body.
local function announce(topic, kind, at, client, user, body, reason)
  local number = redis.call('HINCRBY', state, 'q', 1)
  redis.call('PUBLISH', topic, table.concat({kind, at, number, client, user, reason or '', body}, '\0'))
  return number
end

local function is_empty()
  return redis.call('HLEN', connections) == 0 and redis.call('HLEN', members) == 0
end

-- Nobody is here any more: only the numbering stays for a while, for copies that are behind.
local function close_if_empty()
  if is_empty() then
    redis.call('HDEL', state, 'c')
    redis.call('EXPIRE', state, 300)
  end
end

local function has_session(user)
  return redis.call('ZLEXCOUNT', sessions, '[' .. user .. '\0', '(' .. user .. '\1') > 0
end

-- Take a user off the list who has neither a connection nor a hold; their entry, if that is so. `reason`: how the last
-- connection went.
local function drop(topic, at, client, user, reason)
  if has_session(user) then return '' end
  if redis.call('HEXISTS', held, user) == 1 then return '' end
  local entry = redis.call('HGET', members, user)
  if not entry then return '' end
  redis.call('HDEL', members, user)
  announce(topic, 'left', at, client, user, entry, reason)
  return entry
end

-- Take a connection out; with its user's last one the user, unless held until then ('': not at all). `but` must not
-- hear of it. Gives the entry of a user who has left, or ''.
local function take_out(topic, at, client, user, until_when, but, reason)
  redis.call('HDEL', connections, client)
  if user == '' then return '' end
  redis.call('ZREM', sessions, user .. '\0' .. client)
  if until_when ~= '' and not has_session(user) then redis.call('HSET', held, user, until_when .. '\0' .. reason) end
  return drop(topic, at, but, user, reason)
end
