-- end_thread(thread, streams, memory, turns, saved, names, order | holder, waiting, newest)
-- All of a thread is deleted, if it is still as it was seen. Answers {'ok'} or {'busy'}.
local thread = redis.call('HMGET', KEYS[1], 'holder', 'waiting', 'newest')
for index = 1, 3 do
  if (thread[index] or '') ~= ARGV[index] then return { 'busy' } end
end
redis.call('UNLINK', unpack(KEYS))
return { 'ok' }
