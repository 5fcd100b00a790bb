-- reserve(queue, starting | id, most, others)
-- A place in the queue for a job that is about to be added; `starting` holds those that are not yet in it, for a
-- minute at most. A caller may have as many jobs as there are places left (the dynamic threshold of Choudhury and
-- Hahne, 1998): whoever floods the queue leaves room for who has little in it. `others`: what this caller has.
-- Answers {'ok'} or {'full'}.
local QUEUE, STARTING = KEYS[1], KEYS[2]
local id, most, others, WAIT_MS, AHEAD_MS = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 60000, 1000
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', STARTING, '-inf', NOW - WAIT_MS)
redis.call('ZREMRANGEBYSCORE', STARTING, NOW + AHEAD_MS, '+inf')
if redis.call('ZSCORE', STARTING, id) then return { 'ok' } end
local left = most - redis.call('XLEN', QUEUE) - redis.call('ZCARD', STARTING)
if others >= left then return { 'full' } end
redis.call('ZADD', STARTING, NOW, id)
redis.call('PEXPIRE', STARTING, WAIT_MS)
return { 'ok' }
