-- What was counted by nodes that are no more becomes part of what has been counted at all.
-- KEYS  1 readings (hash: node -> JSON, {counts: {name: number}, slots: {slot: [in, out]}, …}) 2 nodes (set)
--       3 counts (hash: name -> number) 4 slots (hash: slot ' ' 'in' or 'out' -> number)
-- ARGV  1 the oldest slot that is still of use 2 seconds that all this is kept for
for _, node in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('SISMEMBER', KEYS[2], node) == 0 then
    local reading = cjson.decode(redis.call('HGET', KEYS[1], node))
    for name, count in pairs(reading.counts) do
      if count ~= 0 then redis.call('HINCRBYFLOAT', KEYS[3], name, string.format('%.17g', count)) end
    end
    for slot, counts in pairs(reading.slots) do
      redis.call('HINCRBY', KEYS[4], slot .. ' in', string.format('%.0f', counts[1]))
      redis.call('HINCRBY', KEYS[4], slot .. ' out', string.format('%.0f', counts[2]))
    end
    redis.call('HDEL', KEYS[1], node)
  end
end
for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
  if tonumber(string.match(field, '^%d+')) < tonumber(ARGV[1]) then redis.call('HDEL', KEYS[4], field) end
end
for at = 3, 4 do redis.call('EXPIRE', KEYS[at], ARGV[2]) end
return {}
