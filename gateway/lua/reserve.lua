-- reserve(jobs, starting | id, most, others, keep_ms)
-- A place for a job that is about to be enqueued. `jobs` are those that were, until somebody settles them or cancels
-- their stream; `starting` those that are not yet, for a minute at most. Ids, so that a job that is delivered again
-- counts once. A caller may have as many as there are places left (the dynamic threshold of Choudhury and Hahne,
-- 1998): whoever floods the queue leaves room for who has little in it. `others`: what this caller has.
-- Answers {'ok'} or {'full'}.
local JOBS, STARTING = KEYS[1], KEYS[2]
local id, most, others, keep_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local WAIT_MS, AHEAD_MS = 60000, 1000
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', JOBS, '-inf', NOW - keep_ms)
redis.call('ZREMRANGEBYSCORE', STARTING, '-inf', NOW - WAIT_MS)
redis.call('ZREMRANGEBYSCORE', STARTING, NOW + AHEAD_MS, '+inf')
if redis.call('ZSCORE', STARTING, id) then return { 'ok' } end
local left = most - redis.call('ZCARD', JOBS) - redis.call('ZCARD', STARTING)
if others >= left then return { 'full' } end
redis.call('ZADD', STARTING, NOW, id)
redis.call('PEXPIRE', STARTING, WAIT_MS)
return { 'ok' }
