-- Send a message to all connections in the channel but one, and keep it.
-- KEYS  the channel's five, 6 log (stream: id 'epoch-number' -> p number of the message before it, k its key, b frame),
--       7 message_keys (hash: key -> number NUL how many connections it went to)
-- ARGV  1 topic 2 known epoch ('0' if the sender is not in the channel) 3 client to leave out ('': none)
--       4 the frame's JSON without its last brace 5 key by which a repetition is known ('': none)
--       6 how many messages are kept 7 for how many seconds 8 how many bytes
-- Returns {epoch, number in the order, how many connections it goes to, number of the message, 1 if it is new}
--         | {'lost'} if the channel that the caller knows is gone.
local at, log, keys = epoch(ARGV[2]), KEYS[6], KEYS[7]
if ARGV[2] ~= '0' and ARGV[2] ~= at then return {'lost'} end
use_log()
local previous = redis.call('HGET', state, 'm')
if not previous then
  redis.call('DEL', log, keys) -- of an earlier epoch
  previous = '0'
end
if ARGV[5] ~= '' then
  local first = redis.call('HGET', keys, ARGV[5])
  if first then
    local number, delivered = split(first)
    return {at, redis.call('HGET', state, 'q'), tonumber(delivered), number, 0}
  end
end
local delivered = redis.call('HLEN', connections) - redis.call('HEXISTS', connections, ARGV[3])
local number = string.format('%.0f', redis.call('HINCRBY', state, 'q', 1))
local frame = ARGV[4] .. ',"id":"' .. at .. '-' .. number .. '"}'
redis.call('PUBLISH', ARGV[1], table.concat({'message', at, number, ARGV[3], previous, '', frame}, '\0'))
if redis.call('EXISTS', log) == 0 then redis.call('HSET', state, 'b', 0) end
redis.call('XADD', log, at .. '-' .. number, 'p', previous, 'k', ARGV[5], 'b', frame)
redis.call('HSET', state, 'm', number, 'l', ARGV[7])
if previous == '0' then use_log() end
if ARGV[5] ~= '' then redis.call('HSET', keys, ARGV[5], number .. '\0' .. delivered) end
local bytes, count = redis.call('HINCRBY', state, 'b', #frame), redis.call('XLEN', log)
while count > tonumber(ARGV[6]) or bytes > tonumber(ARGV[8]) do
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', log, oldest[1])
  if oldest[2][4] ~= '' then redis.call('HDEL', keys, oldest[2][4]) end
  bytes, count = redis.call('HINCRBY', state, 'b', -#oldest[2][6]), count - 1
end
redis.call('EXPIRE', log, ARGV[7])
redis.call('EXPIRE', keys, ARGV[7])
close_if_empty()
return {at, number, delivered, number, 1}
