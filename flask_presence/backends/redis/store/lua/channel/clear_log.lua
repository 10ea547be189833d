-- Forget the kept messages, and tell the workers, which keep the newest ones too.
-- KEYS  the channel's five, 6 log 7 message_keys (see publish_kept)
-- ARGV  1 topic
-- Returns how many there were.
local count = redis.call('XLEN', KEYS[6])
redis.call('DEL', KEYS[6], KEYS[7])
local at = redis.call('HGET', state, 'e')
if at then announce(ARGV[1], 'cleared', at, '', '', '') end
return count
