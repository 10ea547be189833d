-- How many are in each of several channels.
-- KEYS  of each channel its state, and the one whose length is counted: members or connections
-- gives {when it came to be or '', how many, …}
local found = {}
for at = 1, #KEYS, 2 do
  found[at] = redis.call('HGET', KEYS[at], 'c') or ''
  found[at + 1] = redis.call('HLEN', KEYS[at + 1])
end
return found
