-- End a user's grace period.
-- KEYS  the channel's five
-- ARGV  1 topic 2 known epoch 3 user 4 only if the grace period ends by then, in ms ('': in any case)
-- Returns {entry of a user who has left or '', end of a grace period that goes on or '', reason}.
if redis.call('EXISTS', state) == 0 then return {'', '', ''} end
local at, noted = epoch(ARGV[2]), redis.call('HGET', graces, ARGV[3])
local entry, later, grace_end, reason = '', '', nil, ''
if noted then grace_end, reason = split(noted) end
if grace_end and (ARGV[4] == '' or tonumber(grace_end) <= tonumber(ARGV[4])) then
  redis.call('HDEL', graces, ARGV[3])
  entry = drop(ARGV[1], at, '', ARGV[3], reason)
elseif grace_end then
  later = grace_end
end
close_if_empty()
return {entry, later, reason}
