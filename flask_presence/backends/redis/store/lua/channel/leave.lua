-- Take a connection out, and its user if it was the last one.
-- KEYS  the channel's five, 6 the worker's own connections in it (set)
-- ARGV  1 topic 2 known epoch 3 client 4 end of the user's grace period, in ms ('': none) 5 reason
-- Returns {'ok', epoch, number, entry of a user who has left or ''} | {'not_found'} | {'not_member'}.
local topic, client = ARGV[1], ARGV[3]
redis.call('SREM', KEYS[6], client)
if redis.call('EXISTS', state) == 0 then return {'not_found'} end
local at = epoch(ARGV[2])
local whose = redis.call('HGET', connections, client)
if not whose then return {is_empty() and 'not_found' or 'not_member'} end
local user = split(whose)
local entry = take_out(topic, at, client, user, ARGV[4], client, ARGV[5])
close_if_empty()
return {'ok', at, redis.call('HGET', state, 'q'), entry}
