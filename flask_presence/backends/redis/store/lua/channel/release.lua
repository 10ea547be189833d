-- A user is held no longer.
-- KEYS  the channel's five
-- ARGV  1 topic 2 known epoch 3 user 4 only if the hold ends by then, in ms ('': in any case)
-- gives {entry of a user who has left or '', until when they are held all the same or '', reason}
if redis.call('EXISTS', state) == 0 then return {'', '', ''} end
local at, noted = epoch(ARGV[2]), redis.call('HGET', held, ARGV[3])
local entry, later, until_when, reason = '', '', nil, ''
if noted then until_when, reason = split(noted) end
if until_when and (ARGV[4] == '' or tonumber(until_when) <= tonumber(ARGV[4])) then
  redis.call('HDEL', held, ARGV[3])
  entry = drop(ARGV[1], at, '', ARGV[3], reason)
elseif until_when then
  later = until_when
end
close_if_empty()
return {entry, later, reason}
