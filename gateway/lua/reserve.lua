-- reserve(jobs, starting | id, most, others, keep_ms)
-- Reserve a place for a job that will be enqueued. `jobs` are the enqueued jobs, until they are settled or their
-- stream is cancelled. `starting` are the jobs that are not enqueued yet; they stay there for a minute at most. Both
-- contain ids, so a job that is delivered again counts once. A caller may have as many jobs as there are free places
-- (the dynamic threshold of Choudhury and Hahne, 1998). So a caller that floods the queue leaves room for callers
-- that have few jobs in it. `others`: how many jobs this caller has.
-- Returns {'ok'} or {'full'}.
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
