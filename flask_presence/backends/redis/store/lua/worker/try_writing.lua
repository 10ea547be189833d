-- Do what a join does, to find out whether Redis allows it: write and publish.
-- KEYS  1 probe (string) 2 any other, which stays as it is
-- ARGV  1 topic 2 milliseconds for which the key is kept
-- Returns 'ok'.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[1], '')
return 'ok'
