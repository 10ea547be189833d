-- Whether Redis takes what a join needs: something written, something published.
-- KEYS  1 probe (string, for a moment)
-- ARGV  1 topic 2 milliseconds that it is kept
-- gives 'ok'
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[1], '')
return 'ok'
