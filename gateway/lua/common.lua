-- Stands before every script. Time is Redis's own; ended states are the protocol's terminal ones.
-- Keys, in all scripts: 1 job (hash), 2 log (string), 3 open (sorted set); all of one bucket, so of one slot.
-- Where a script takes several streams, it sets these three for each.
local JOB, LOG, OPEN = KEYS[1], KEYS[2], KEYS[3]
local ENDED = { done = true, failed = true, cancelled = true }
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A lease that ends further away than its own length was set by a clock that has since gone back: it is over.
local function lease_left(lease, lease_ms)
  local left = tonumber(lease or 0) - NOW
  if left > tonumber(lease_ms or 0) then return 0 end
  return math.max(left, 0)
end

-- For how many ms from now the log is kept, and for how many the record is. The log of an ended stream is kept for
-- the retention (keep_ms), that of one that waits for an answer for thread_ms if that is longer, that of any other for
-- open_ms, and the record is kept for tombstone_ms longer than its log.
-- A record without open_ms was made by an earlier release, which kept every log for the retention.
local function lifetimes()
  local job = redis.call('HMGET', JOB, 'status', 'keep_ms', 'tombstone_ms', 'open_ms', 'questions', 'thread_ms')
  local log_ms = tonumber(job[2])
  if job[5] then log_ms = math.max(log_ms, tonumber(job[6])) end
  if job[4] and not ENDED[job[1]] then log_ms = tonumber(job[4]) end
  return log_ms, log_ms + tonumber(job[3])
end

-- Set every expiry of a stream anew: those of the log and the idempotency key, and that of the record.
local function keep()
  local log_ms, job_ms = lifetimes()
  redis.call('PEXPIRE', LOG, log_ms)
  redis.call('PEXPIRE', JOB, job_ms)
  local idem = redis.call('HGET', JOB, 'idem')
  if idem and idem ~= '' then redis.call('PEXPIRE', idem, log_ms) end
end

-- When the time of a stream that has not ended is over, and the code with which the stream then ends. A stream may
-- wait for its first attempt for wait_ms, counted from its creation, and run for run_ms, counted from that attempt.
-- since_ms is the beginning of either. Answers nothing for a record that an earlier release made or claimed first.
-- Nobody is sent for a producer's stream: a producer must come within wait_ms of the creation, and of the end of the
-- last one's lease, which is as long. Then its time is over, however long it has run.
local function deadline()
  local job = redis.call('HMGET', JOB, 'since_ms', 'started_ms', 'wait_ms', 'run_ms', 'producer')
  local since, longest, code = tonumber(job[1]), tonumber(job[3]), 'wait_limit'
  if job[5] then
    code = 'producer_lost'
  elseif job[2] then
    longest, code = tonumber(job[4]), 'time_limit'
  end
  if since and longest then return since + longest, code end
end

-- The code with which this stream ends now, because its time is over and no worker holds it; else nothing. A stream
-- that was never confirmed expires by itself.
local function overdue()
  local job = redis.call('HMGET', JOB, 'status', 'confirmed', 'lease_end_ms', 'lease_ms', 'producer')
  if not job[1] or ENDED[job[1]] or not job[2] then return end
  if job[1] == 'running' then
    if lease_left(job[3], job[4]) > 0 then return end
    if job[5] and tonumber(job[3]) > NOW then return end -- the clock has gone back, and `ask` sets the lease anew
  end
  local at, code = deadline()
  if at and at <= NOW then return code end
end

-- When somebody should look at this stream: at the given time, or at the end of the stream's time if that is sooner.
-- The index outlives each of its members.
local function look_at(id, when)
  local at = deadline()
  if at and at > NOW then when = math.min(when, at) end
  redis.call('ZADD', OPEN, when, id)
  local _, job_ms = lifetimes()
  if redis.call('PTTL', OPEN) < job_ms then redis.call('PEXPIRE', OPEN, job_ms) end
end

-- What a retry of a failed stream needs: a hash beside the record, which lasts as long as the log.
local function kept() return string.gsub(JOB, ':job:', ':kept:', 1) end

-- What only a run needs is dropped: the input is somebody's prompt. Of a failed stream, which may be tried again, it
-- moves to its `kept` hash, without what tools have answered.
local function drop_run(failed)
  local name = kept()
  local run = { input = true, params = true, turn = true, graph = true, answer = true, carried = true, doubted = true }
  for _, field in ipairs(redis.call('HKEYS', JOB)) do
    local kind = string.sub(field, 1, 5)
    if run[field] or kind == 'ckpt:' or kind == 'tool:' then
      if failed and kind ~= 'tool:' then redis.call('HSET', name, field, redis.call('HGET', JOB, field)) end
      redis.call('HDEL', JOB, field)
    end
  end
  if failed then redis.call('PEXPIRE', name, (lifetimes())) end
end

-- The stream ends; the tombstone stays. One that waits for an answer keeps what the run that answers it needs.
local function finish(id, status)
  redis.call('HSET', JOB, 'status', status, 'ended_ms', NOW)
  redis.call('HDEL', JOB, 'lease_ms', 'lease_end_ms')
  if redis.call('HEXISTS', JOB, 'questions') == 0 then
    drop_run(status == 'failed' and redis.call('HEXISTS', JOB, 'unstored') == 0)
  end
  redis.call('ZREM', OPEN, id)
  keep()
end

-- Append and publish in one step, with fields of the job. A block names the event before it, so a reader knows
-- whether it fits, and the time, so that a relay knows how late it is. A user that may not publish here (ACL) writes all
-- the same: the script would else end between the frames and the rest. Readers then find the events in the log.
local function publish(id, before, last, status, frames, ...)
  redis.call('APPEND', LOG, frames)
  redis.call('HSET', JOB, 'last_id', last, ...)
  redis.pcall('PUBLISH', 'live:' .. id, before .. ' ' .. last .. ' ' .. status .. ' ' .. NOW .. '\n' .. frames)
end
