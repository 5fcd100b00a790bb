-- back(thread | id, before)
-- Undo the newest stream: the thread returns to its state before this stream.
-- Returns {'ok'} (also when the same call is repeated) or {'moved'}: another stream is the newest.
local newest = redis.call('HGET', KEYS[1], 'newest')
if newest and newest ~= ARGV[2] then
  if newest ~= ARGV[1] then return { 'moved' } end
  redis.call('HSET', KEYS[1], 'newest', ARGV[2])
end
return { 'ok' }
