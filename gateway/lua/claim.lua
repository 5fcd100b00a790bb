-- claim(job, log, open | id, token, lease_ms, version, foreign_ms, run_ms, producer)
-- Claim a job. The worker has chosen the token. The same token gets the same answer again, so a lost answer does no
-- harm.
-- `version` is the protocol version of the worker and its message. A record of another version is left to a release
-- that knows it, for foreign_ms after the first refusal. After that it is claimed, so that a worker ends it.
-- `run_ms` is how long this worker lets a stream run, from the first attempt on. The record stores it, so that any
-- process can end a stream that no worker runs any more. A stream that has waited too long for its first attempt is
-- not claimed.
-- Only a lease that ran out before an event was appended counts as a failure.
-- `producer` is empty for a worker, which never claims a producer's stream. A producer's `take` claims the stream at
-- once, even if another producer has it. Its `keep` continues a claim that it already has, and claims nothing else. A
-- take restarts the count of lines from 0, and stores where the log ended.
-- Returns {'claimed', now_ms, log_end, job as field, value, ..., tells}, {'held', ms left}, {'ended', status},
-- {'unknown'}, {'foreign'}, {'over', code}. `tells` is 1 if this call has written to the stream's journal, else 0.
local id, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local job = redis.call('HMGET', JOB, 'status', 'token', 'lease_end_ms', 'lease_ms', 'progress', 'version', 'producer')
local status, producer = job[1], ARGV[7] ~= ''
if not status or producer ~= (job[7] ~= false) then return { 'unknown' } end
if ENDED[status] then return { 'ended', status } end
if not (status == 'running' and job[2] == token) then
  if ARGV[7] == 'keep' then return { 'held', 0 } end
  if status == 'running' and not producer then
    local left = lease_left(job[3], job[4])
    if left > 0 then return { 'held', left } end
  end
  if job[6] ~= ARGV[4] then
    redis.call('HSETNX', JOB, 'foreign_ms', NOW)
    if NOW - tonumber(redis.call('HGET', JOB, 'foreign_ms')) < tonumber(ARGV[5]) then return { 'foreign' } end
  end
  if overdue() == 'wait_limit' then return { 'over', 'wait_limit' } end
  if status == 'running' and job[5] == '0' then redis.call('HINCRBY', JOB, 'failures', 1) end
  redis.call('HINCRBY', JOB, 'attempt', 1)
  -- An earlier release does not write run_ms, and leaves since_ms as the creation set it.
  if redis.call('HSETNX', JOB, 'started_ms', NOW) == 1 or redis.call('HEXISTS', JOB, 'run_ms') == 0 then
    redis.call('HSET', JOB, 'since_ms', NOW)
  end
  redis.call('HSET', JOB, 'status', 'running', 'token', token, 'progress', 0)
  redis.call('HDEL', JOB, 'asked_ms', 'asks')
  if producer then redis.call('HSET', JOB, 'lines', 0, 'course', '', 'claimed_at', redis.call('STRLEN', LOG)) end
end
redis.call('HSET', JOB, 'confirmed', 1, 'lease_ms', lease_ms, 'lease_end_ms', NOW + lease_ms, 'run_ms', ARGV[6])
local tells = tell_started(id)
keep()
look_at(id, NOW + lease_ms)
return { 'claimed', NOW, redis.call('STRLEN', LOG), redis.call('HGETALL', JOB), tells }
