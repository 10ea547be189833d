-- Take some of a dead node's connections out of a channel, and announce who has left with them.
-- KEYS  the channel's five, 6 set of the dead node's own connections
-- ARGV  1 topic 2 known epoch 3 dead node 4 how many at the most 5 until when their users are held, in ms ('': not at all)
-- gives {connections looked at, client taken out, its user, entry of a user who has left with it or '', …}
local at, taken = epoch(ARGV[2]), redis.call('SPOP', KEYS[6], ARGV[4])
local reply = {#taken}
for _, client in ipairs(taken) do
  local whose = redis.call('HGET', connections, client)
  if whose then
    local user, node = split(whose)
    if node == ARGV[3] then
      table.insert(reply, client)
      table.insert(reply, user)
      table.insert(reply, take_out(ARGV[1], at, client, user, ARGV[5], '', 'worker_lost'))
    end
  end
end
close_if_empty()
return reply
