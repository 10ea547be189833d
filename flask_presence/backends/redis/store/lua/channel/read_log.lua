-- Read the newest kept messages.
-- KEYS  the channel's five, 6 log (see publish_kept)
-- ARGV  1 only those above this number ('': all) 2 only those below this place, 'epoch-number' ('': all)
--       3 how many at most 4 how many bytes, but one message at least
-- Returns {epoch or '', number in the order, number of the last message in this epoch, 1 if older ones were left out,
--          then for each, newest first: its number, that of the message before it, its frame}.
use_log()
local found = redis.call('HMGET', state, 'e', 'q', 'm')
local at = found[1] or ''
local reply, size, limit = {at, found[2] or 0, found[3] or 0, 0}, 0, tonumber(ARGV[3])
if not found[3] then return reply end -- nothing has been kept in this epoch
if ARGV[2] == '0-0' then return reply end -- nothing is before it, and XREVRANGE refuses it
local from, upto = at .. '-' .. (ARGV[1] ~= '' and ARGV[1] or '0'), ARGV[2] ~= '' and ARGV[2] or '+'
local count = 0
while true do
  local chunk = redis.call('XREVRANGE', KEYS[6], upto == '+' and '+' or '(' .. upto, '(' .. from, 'COUNT', 100)
  for _, message in ipairs(chunk) do
    local frame = message[2][6]
    size = size + #frame
    if count == limit or (count > 0 and size > tonumber(ARGV[4])) then
      reply[4] = 1
      return reply
    end
    count = count + 1
    table.insert(reply, string.sub(message[1], #at + 2))
    table.insert(reply, message[2][2])
    table.insert(reply, frame)
    upto = message[1]
  end
  if #chunk < 100 then return reply end
end
