-- Add the counts of removed workers to the service's own.
-- KEYS  1 worker_counts (hash: worker -> JSON, {counts: {name: number}, slots: {slot: [received, sent]}, …})
--       2 workers (set) 3 absorbed_counts (hash: name -> number)
--       4 absorbed_traffic (hash: slot ' ' 'in' or 'out' -> number)
-- ARGV  1 the oldest time slot that is still shown 2 seconds for which all of this is kept
for _, worker in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('SISMEMBER', KEYS[2], worker) == 0 then
    local reading = cjson.decode(redis.call('HGET', KEYS[1], worker))
    for name, count in pairs(reading.counts) do
      if count ~= 0 then redis.call('HINCRBYFLOAT', KEYS[3], name, string.format('%.17g', count)) end
    end
    for slot, counts in pairs(reading.slots) do
      redis.call('HINCRBY', KEYS[4], slot .. ' in', string.format('%.0f', counts[1]))
      redis.call('HINCRBY', KEYS[4], slot .. ' out', string.format('%.0f', counts[2]))
    end
    redis.call('HDEL', KEYS[1], worker)
  end
end
for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
  if tonumber(string.match(field, '^%d+')) < tonumber(ARGV[1]) then redis.call('HDEL', KEYS[4], field) end
end
for at = 3, 4 do redis.call('EXPIRE', KEYS[at], ARGV[2]) end
return {}
