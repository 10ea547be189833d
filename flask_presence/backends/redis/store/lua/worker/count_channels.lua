-- Count the members of several channels.
-- KEYS  of each channel: its state, and the key whose length counts (members or connections)
-- Returns {when the channel began or '', how many, …}.
local found = {}
for at = 1, #KEYS, 2 do
  found[at] = redis.call('HGET', KEYS[at], 'c') or ''
  found[at + 1] = redis.call('HLEN', KEYS[at + 1])
end
return found
