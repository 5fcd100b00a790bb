-- list_thread(named | name, ms, most)
-- Put a thread into the index of its owner's threads, by the time of its newest stream. Threads that have had no
-- stream for `ms` leave the index. Returns {'ok'} or {'full'}: the owner already has `most` other threads.
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', NOW - tonumber(ARGV[2]))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  return { 'full' }
end
redis.call('ZADD', KEYS[1], NOW, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 'ok' }
