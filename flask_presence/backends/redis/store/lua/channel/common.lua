-- What the channel scripts share. Everything that a client has sent is in ARGV, never in a script's text; JSON is bytes.
--
-- A channel is
--   state        hash: e epoch, q number of the last event, c when the channel began (the caller's text), and if it keeps
--                messages: m number of the last one in this epoch, l seconds for which they are kept, b their bytes,
--                h the run of Redis that numbered them;
--                r followed by a user: id of the caller who has reserved the member NUL end of the reservation, ms
--   members      hash: user -> version NUL place NUL document; version and place are event numbers
--   connections  hash: client -> user NUL worker
--   sessions     zset, all scores 0: user NUL client, in presence channels, so that a user's are counted in O(log n)
--   graces       hash: user -> end, ms NUL reason, for users who stay listed without a connection
-- If Redis loses the numbers, they begin again under a larger epoch. The state expires unless somebody is in the channel.

local state, members, connections, sessions, graces = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function split(value)
  local at = string.find(value, '\0', 1, true)
  return string.sub(value, 1, at - 1), string.sub(value, at + 1)
end

-- Whether a guard owns keys of a member: then the document begins with a space.
local function has_owned(entry)
  return string.find(entry, '\0 {', 1, true) ~= nil
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Reserve a member for one caller's next change, for a second at most, so that a flood of other changes cannot keep the
-- server's own from happening.
local function reserve(user, id)
  redis.call('HSET', state, 'r' .. user, id .. '\0' .. string.format('%.0f', now() + 1000))
end

-- Whether a member is reserved for a change by somebody other than `id`.
local function reserved_for_other(user, id)
  local reserved = redis.call('HGET', state, 'r' .. user)
  if not reserved then return false end
  local owner, ends = split(reserved)
  return owner ~= id and tonumber(ends) > now()
end

-- The channel's epoch; a new one if it has none. `known` is the newest that the caller has seen.
local function epoch(known)
  local current = redis.call('HGET', state, 'e')
  if current then return current end
  local new = now()
  if new <= tonumber(known) then new = tonumber(known) + 1 end
  current = string.format('%.0f', new)
  redis.call('DEL', members, connections, sessions, graces)
  redis.call('HSET', state, 'e', current, 'q', 0)
  redis.call('EXPIRE', state, 300)
  return current
end

-- Note that the log, if the channel has one, may lack messages: numbers go on far beyond those that may have been given
-- out, and whatever came before counts as missed.
local function doubt_log()
  if redis.call('HEXISTS', state, 'm') == 0 then return end
  local number = redis.call('HINCRBY', state, 'q', 1000000000)
  redis.call('HSET', state, 'm', string.format('%.0f', number))
end

-- Begin to use the log, if the channel has one. If Redis has restarted, perhaps with an old copy of its data, it may not
-- know the last numbers that it has given out.
local function use_log()
  if redis.call('HEXISTS', state, 'm') == 0 then return end
  local run, known = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or '', redis.call('HGET', state, 'h')
  if known == run then return end
  redis.call('HSET', state, 'h', run)
  if known then doubt_log() end
end

-- Number an event and publish it: kind, epoch, number, client that does not hear it, user, reason, body.
local function announce(topic, kind, at, client, user, body, reason)
  local number = redis.call('HINCRBY', state, 'q', 1)
  redis.call('PUBLISH', topic, table.concat({kind, at, number, client, user, reason or '', body}, '\0'))
  return number
end

local function is_empty()
  return redis.call('HLEN', connections) == 0 and redis.call('HLEN', members) == 0
end

-- If the channel is empty, keep only its numbers: for a while, for workers' copies that lag behind, and for longer than
-- its kept messages.
local function close_if_empty()
  if is_empty() then
    redis.call('HDEL', state, 'c')
    redis.call('EXPIRE', state, 300 + (redis.call('HGET', state, 'l') or 0))
  end
end

local function has_session(user)
  return redis.call('ZLEXCOUNT', sessions, '[' .. user .. '\0', '(' .. user .. '\1') > 0
end

-- Take a user off the list if the user has neither a connection nor a grace period. Returns the user's entry, or ''.
-- `reason`: why the last connection left.
local function drop(topic, at, client, user, reason)
  if has_session(user) then return '' end
  if redis.call('HEXISTS', graces, user) == 1 then return '' end
  local entry = redis.call('HGET', members, user)
  if not entry then return '' end
  redis.call('HDEL', members, user)
  redis.call('HDEL', state, 'r' .. user)
  announce(topic, 'left', at, client, user, entry, reason)
  return entry
end

-- Take a connection out, and its user if it was the last one. With a `grace_end`, the user stays listed until then.
-- `exclude` does not hear of it. Returns the entry of a user who has left, or ''.
local function take_out(topic, at, client, user, grace_end, exclude, reason)
  redis.call('HDEL', connections, client)
  if user == '' then return '' end
  redis.call('ZREM', sessions, user .. '\0' .. client)
  if grace_end ~= '' and not has_session(user) then redis.call('HSET', graces, user, grace_end .. '\0' .. reason) end
  return drop(topic, at, exclude, user, reason)
end
