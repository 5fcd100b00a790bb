-- hand(thread, streams, turns | over, id)
-- Give the turn of a stream that asked a question to the stream that continues with the answer, before all waiting
-- streams.
-- Returns {'ok'} (also when the same call is repeated) or {'other'}: another stream has the turn.
local over, id = ARGV[1], ARGV[2]
local thread = redis.call('HMGET', KEYS[1], 'holder', 'newest', 'ms')
if thread[1] == id then return { 'ok' } end
if thread[1] ~= over then return { 'other' } end
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[1], 'holder', id, 'updated_ms', NOW)
if thread[2] == over then redis.call('HSET', KEYS[1], 'newest', id) end
redis.call('PEXPIRE', KEYS[1], thread[3])
redis.call('ZADD', KEYS[2], NOW, id)
if redis.call('PTTL', KEYS[2]) < 0 then redis.call('PEXPIRE', KEYS[2], thread[3]) end
took(KEYS[1], KEYS[3], id, thread[3])
return { 'ok' }
