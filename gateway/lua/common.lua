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

-- Raise every expiry of a stream: log and idempotency key to the retention, the job to that and a tombstone.
local function keep()
  local job = redis.call('HMGET', JOB, 'keep_ms', 'tombstone_ms', 'idem')
  local whole = tonumber(job[1]) + tonumber(job[2])
  redis.call('PEXPIRE', LOG, job[1])
  redis.call('PEXPIRE', JOB, whole)
  if job[3] and job[3] ~= '' then redis.call('PEXPIRE', job[3], job[1]) end
  return whole
end

-- When somebody should look at this stream. The index outlives each of its members.
local function look_at(id, when)
  redis.call('ZADD', OPEN, when, id)
  local whole = tonumber(redis.call('HGET', JOB, 'keep_ms')) + tonumber(redis.call('HGET', JOB, 'tombstone_ms'))
  if redis.call('PTTL', OPEN) < whole then redis.call('PEXPIRE', OPEN, whole) end
end

-- The stream ends: what only a run needs is dropped (the input is somebody's prompt), the tombstone stays.
local function finish(id, status)
  redis.call('HSET', JOB, 'status', status, 'ended_ms', NOW)
  redis.call('HDEL', JOB, 'input', 'params', 'lease_ms', 'lease_end_ms')
  for _, field in ipairs(redis.call('HKEYS', JOB)) do
    if string.sub(field, 1, 5) == 'ckpt:' then redis.call('HDEL', JOB, field) end
  end
  redis.call('ZREM', OPEN, id)
  keep()
end

-- Append and publish in one step, with fields of the job. A block names the event before it, so a reader knows
-- whether it fits, and the time, so that a relay knows how late it is.
local function publish(id, before, last, status, frames, ...)
  redis.call('APPEND', LOG, frames)
  redis.call('HSET', JOB, 'last_id', last, ...)
  redis.call('PUBLISH', 'live:' .. id, before .. ' ' .. last .. ' ' .. status .. ' ' .. NOW .. '\n' .. frames)
end
