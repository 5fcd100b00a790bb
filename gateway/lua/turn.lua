-- turn(conversation | before, stream, state, keep_ms)
-- Store the conversation's newest stream, and its state when that stream began. This succeeds only if `before` was
-- the newest stream until now.
-- Returns {'ok'} (also when the same call is repeated because its answer was lost) or {'busy'}.
local newest = redis.call('HGET', KEYS[1], 'stream') or ''
if newest ~= ARGV[2] then
  if newest ~= ARGV[1] then return { 'busy' } end
  redis.call('HSET', KEYS[1], 'stream', ARGV[2], 'state', ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return { 'ok' }
