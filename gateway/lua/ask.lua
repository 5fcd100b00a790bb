-- ask(job, log, open | id, backoff_ms, undo)
-- Decide whether the caller may enqueue the job again: only once in a back-off period, for all callers together.
-- A record that was never confirmed is left alone: its POST was answered with an error, or is still running.
-- The back-off doubles, up to 64 times, while no worker claims the job. So a long queue does not get longer by these
-- calls.
-- `undo` reverts a 'yes': the queue did not accept the message, so the back-off does not grow.
-- A record without the expected fields (perhaps of another release) is not checked again.
-- No job is enqueued for a producer's stream: it waits for its producer, or its time is over.
-- A stream whose time is over is not run any more: the caller ends it by give_up, with the code that is returned
-- here.
-- Returns {'yes', trace}, {'wait', ms}, {'held', ms left}, {'over', code}, {'ended', status}, {'unknown'}.
local id, backoff = ARGV[1], tonumber(ARGV[2])
local job = redis.call('HMGET', JOB, 'status', 'confirmed', 'lease_end_ms', 'lease_ms', 'asked_ms', 'asks', 'trace',
  'keep_ms', 'tombstone_ms', 'since_ms', 'producer')
if not job[1] or not tonumber(job[8]) or not tonumber(job[9]) or ENDED[job[1]] then
  redis.call('ZREM', OPEN, id)
  if ENDED[job[1] or ''] then return { 'ended', job[1] } end
  return { 'unknown' }
end
if not job[2] then return { 'wait', backoff } end -- an unconfirmed record is not in the index either
local asks = tonumber(job[6] or 0)
if ARGV[3] == '1' then
  redis.call('HSET', JOB, 'asks', math.max(asks - 1, math.min(asks, 1)))
  look_at(id, NOW + backoff)
  return { 'wait', backoff }
end
keep() -- a job that waits for a long time is still wanted
-- If the stream's time began in the future, the clock was set back after that. Then the time begins again now.
if tonumber(job[10] or 0) > NOW then redis.call('HSET', JOB, 'since_ms', NOW) end
if job[11] and job[1] == 'running' and tonumber(job[3]) > NOW + tonumber(job[4]) then
  job[3] = NOW + tonumber(job[4])
  redis.call('HSET', JOB, 'lease_end_ms', job[3])
end
if job[1] == 'running' then
  local left = lease_left(job[3], job[4])
  if left > 0 then
    look_at(id, NOW + left)
    return { 'held', left }
  end
end
local code = overdue()
if code then
  look_at(id, NOW + backoff) -- in case the caller dies before it has ended the stream
  return { 'over', code }
end
if job[11] then
  look_at(id, NOW + backoff)
  return { 'wait', backoff }
end
local since, wait = NOW - tonumber(job[5] or 0), backoff * 2 ^ math.min(math.max(asks - 1, 0), 6)
if asks > 0 and since >= 0 and since < wait then
  look_at(id, NOW + wait - since)
  return { 'wait', wait - since }
end
redis.call('HSET', JOB, 'asked_ms', NOW, 'asks', asks + 1)
look_at(id, NOW + backoff * 2 ^ math.min(asks, 6))
return { 'yes', job[7] or '' }
