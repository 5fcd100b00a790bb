-- append(job, log, open | id, token, position, frames, last_id, lease_ms, status, count, field, value, ...)
-- Several appends go in one call: three keys and so many arguments for each, and each is for itself; `count` is
-- that of the fields and values which follow. In a cluster all their keys are in one slot.
-- Token and position must be right. No frames: only the lease is renewed. `status` is empty, a final one,
-- or 'queued', which lets the job go (a hand-over). Fields (a checkpoint, usage) travel in the same step.
-- A retry sends the same bytes, never a grown batch; a lease that is over and not claimed is renewed.
-- Frames renew a lease only when a tenth of it, or a second, has worn, or the log begins with them (a key has an
-- expiry from its first byte): what hangs on it is most of the work.
-- Answers {'ok'}, {'duplicate'} (these very bytes stand there), {'lost', log_end} (the log is shorter),
-- {'fenced'} (another claim holds the job), {'ended', status}, {'unknown'}; of several appends, a list of these.

-- The worker has only looked at the job (attempt 0) and lets it go: the stream waits for its first attempt as before.
-- A producer's stream that is let go waits from now on.
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
    return { 'ok' } -- our own hand-over again, its answer was lost
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
  -- The expiries need no raising at every append: once they have worn by a minute is enough.
  local log_ms = lifetimes()
  if redis.call('PTTL', LOG) < math.max(log_ms - 60000, log_ms / 2) then keep() end
  return { 'ok' }
end

local answers, at = {}, 1
for key = 1, #KEYS, 3 do
  JOB, LOG, OPEN = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local to = at + 7 + tonumber(ARGV[at + 7]) -- the last argument of this one
  answers[#answers + 1] = append(at, to)
  at = to + 1
end
if #answers == 1 then return answers[1] end
return answers
