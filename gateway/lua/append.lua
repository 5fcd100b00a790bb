-- append(job, log, open | id, token, position, frames, last_id, lease_ms, status, count, field, value, ...)
-- Append frames to a log. One call may have several appends: three keys and a group of arguments for each. The
-- appends are independent of each other. `count` is the number of fields and values that follow. In a cluster all
-- keys of a call are in one slot.
-- Token and position must be right. Without frames only the lease is renewed. `status` is empty, a final status, or
-- 'queued', which releases the job (a hand-over). Fields (a checkpoint, usage) are written in the same step.
-- A retry sends the same bytes, never a larger batch. A lease that is over and not claimed is renewed.
-- Frames renew a lease only if a tenth of the lease, or a second, has passed, or if the log begins with these frames
-- (a key has an expiry from its first byte). The reason is speed: renewing is most of the work.
-- Returns {'ok'}, {'duplicate'} (the log has these bytes at this position), {'lost', log_end} (the log is shorter),
-- {'fenced'} (another claim has the job), {'ended', status} or {'unknown'}. For several appends, returns a list of
-- these.

-- Restore a job that a worker claimed and releases before its first attempt (attempt 0): the stream waits for its
-- first attempt as before.
-- The waiting time of a producer's stream that is released starts now.
local function not_begun()
  local job = redis.call('HMGET', JOB, 'attempt', 'created_ms', 'producer')
  if job[3] then redis.call('HSET', JOB, 'since_ms', NOW) end
  if job[1] ~= '0' then return end
  redis.call('HDEL', JOB, 'started_ms')
  if job[2] then redis.call('HSET', JOB, 'since_ms', job[2]) end
end

local function append(at, to)
  local id, token, position, frames = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local last, lease_ms, status = ARGV[at + 4], tonumber(ARGV[at + 5]), ARGV[at + 6]
  local job = redis.call('HMGET', JOB, 'status', 'token', 'last_id', 'lease_end_ms', 'lease_ms')
  if not job[1] then return { 'unknown' } end
  local log_end = redis.call('STRLEN', LOG)
  if frames ~= '' and position < log_end
    and redis.call('GETRANGE', LOG, position, position + #frames - 1) == frames then
    return { 'duplicate' }
  end
  if ENDED[job[1]] then return { 'ended', job[1] } end
  if job[1] == 'queued' and status == 'queued' and job[2] == token then
    return { 'ok' } -- this hand-over was already done, but its answer was lost
  end
  if job[1] ~= 'running' or job[2] ~= token then return { 'fenced' } end
  if position > log_end then return { 'lost', log_end } end
  if position < log_end then return { 'fenced' } end
  if frames ~= '' then
    publish(id, job[3], last, status, frames, 'progress', 1, unpack(ARGV, at + 8, to))
    tell_stages(id, frames)
  elseif to > at + 7 then
    redis.call('HSET', JOB, unpack(ARGV, at + 8, to))
  end
  if ENDED[status] then
    finish(id, status)
    return { 'ok' }
  end
  if status == 'queued' then
    redis.call('HSET', JOB, 'status', 'queued', 'lease_end_ms', NOW)
    not_begun()
  elseif frames ~= '' and log_end > 0 and lease_left(job[4], job[5]) > lease_ms - math.min(1000, lease_ms / 10) then
    return { 'ok' }
  else
    redis.call('HSET', JOB, 'lease_ms', lease_ms, 'lease_end_ms', NOW + lease_ms)
  end
  look_at(id, NOW + lease_ms)
  -- The expiries need not be raised at every append. It is enough to raise them when a minute has passed.
  local log_ms = lifetimes()
  if redis.call('PTTL', LOG) < math.max(log_ms - 60000, log_ms / 2) then keep() end
  return { 'ok' }
end

local answers, at = {}, 1
for key = 1, #KEYS, 3 do
  JOB, LOG, OPEN = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local to = at + 7 + tonumber(ARGV[at + 7]) -- the last argument of this append
  answers[#answers + 1] = append(at, to)
  at = to + 1
end
if #answers == 1 then return answers[1] end
return answers
