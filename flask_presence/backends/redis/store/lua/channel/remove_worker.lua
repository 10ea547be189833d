-- Take some of a dead worker's connections out, and announce the users who leave with them.
-- KEYS  the channel's five, 6 the dead worker's own connections in it (set)
-- ARGV  1 topic 2 known epoch 3 dead worker 4 how many at most 5 end of their users' grace periods, in ms ('': none)
-- Returns {connections looked at, client taken out, its user, entry of a user who has left with it or '', …}.
local at, taken = epoch(ARGV[2]), redis.call('SPOP', KEYS[6], ARGV[4])
local reply = {#taken}
for _, client in ipairs(taken) do
  local whose = redis.call('HGET', connections, client)
  if whose then
    local user, worker = split(whose)
    if worker == ARGV[3] then
      table.insert(reply, client)
      table.insert(reply, user)
      table.insert(reply, take_out(ARGV[1], at, client, user, ARGV[5], '', 'worker_lost'))
    end
  end
end
close_if_empty()
return reply
