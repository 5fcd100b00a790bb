-- back(thread | id, before)
-- The newest stream is undone, and the thread stands where it stood before it. Answers {'ok'} (also for our own call
-- again) or {'moved'}: another is the newest.
local newest = redis.call('HGET', KEYS[1], 'newest')
if newest and newest ~= ARGV[2] then
  if newest ~= ARGV[1] then return { 'moved' } end
  redis.call('HSET', KEYS[1], 'newest', ARGV[2])
end
return { 'ok' }
