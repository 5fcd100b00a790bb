-- end_thread(thread, streams, memory, turns, saved, names, order | holder, waiting, newest)
-- Delete a whole thread, if its turns are still as the caller has read them. Returns {'ok'} or {'busy'}.
local thread = redis.call('HMGET', KEYS[1], 'holder', 'waiting', 'newest')
for index = 1, 3 do
  if (thread[index] or '') ~= ARGV[index] then return { 'busy' } end
end
redis.call('UNLINK', unpack(KEYS))
return { 'ok' }
