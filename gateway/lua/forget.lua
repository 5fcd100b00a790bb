-- forget(conversation | stream)
-- Forget a conversation whose newest stream is still this one. Answers {'ok'} or {'busy'}.
local newest = redis.call('HGET', KEYS[1], 'stream') or ''
if newest ~= ARGV[1] then return { 'busy' } end
redis.call('DEL', KEYS[1])
return { 'ok' }
