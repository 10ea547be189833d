-- Delete the record of where a user's connection is, unless it names another worker by now.
-- KEYS  1 user (hash: client id -> worker id)
-- ARGV  1 client id 2 worker id
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
