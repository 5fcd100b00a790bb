-- ask(job, log, open | id, backoff_ms)
-- Whether the caller may enqueue the job again: once in a back-off period, whoever asks.
-- A record that was never confirmed is left alone: its POST was answered with an error, or goes on.
-- Answers {'yes'}, {'wait', ms}, {'held', ms left}, {'ended', status}, {'unknown'}.
local id, backoff = ARGV[1], tonumber(ARGV[2])
local job = redis.call('HMGET', JOB, 'status', 'confirmed', 'lease_end_ms', 'lease_ms', 'asked_ms')
if not job[1] or ENDED[job[1]] then
  redis.call('ZREM', OPEN, id)
  if job[1] then return { 'ended', job[1] } end
  return { 'unknown' }
end
if not job[2] then return { 'wait', backoff } end
if job[1] == 'running' then
  local left = lease_left(job[3], job[4])
  if left > 0 then return { 'held', left } end
end
local since = NOW - tonumber(job[5] or 0)
if since >= 0 and since < backoff then return { 'wait', backoff - since } end
redis.call('HSET', JOB, 'asked_ms', NOW)
look_at(id, NOW + backoff)
return { 'yes' }
