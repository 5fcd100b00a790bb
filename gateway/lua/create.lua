-- create(job, log, open, [idem] | id, expiry_ms, body_hash, frame, field, value, ...)
-- Write the record, the first frame and the idempotency key together, for a short time only: confirm or claim raise
-- the expiry. A record that is never confirmed expires by itself, so a failed enqueue needs no rollback.
-- Without a frame, the script only checks the key.
-- Returns {'created'}, {'exists', id} (the stream of the key), {'conflict'} (the key was used with another body) or
-- {'none'}.
local id, expiry, body, frame = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if KEYS[4] then
  local seen = redis.call('GET', KEYS[4])
  if seen then
    local other, hash = string.match(seen, '^(%S+) (%S+)$')
    local other_job = string.sub(JOB, 1, -#id - 1) .. other
    if redis.call('EXISTS', other_job) == 1 then
      if hash ~= body then return { 'conflict' } end
      if other ~= id then return { 'exists', other } end
    end
  end
end
if not frame then return { 'none' } end
-- the same call is repeated, because its answer was lost
if redis.call('EXISTS', JOB) == 1 then return { 'created' } end
redis.call('HSET', JOB, 'status', 'queued', 'attempt', 0, 'failures', 0, 'since_ms', NOW)
for at = 5, #ARGV, 2000 do -- a retry brings its checkpoints, and Lua's stack is bounded
  redis.call('HSET', JOB, unpack(ARGV, at, math.min(at + 1999, #ARGV)))
end
redis.call('SET', LOG, frame)
redis.call('PEXPIRE', JOB, expiry)
redis.call('PEXPIRE', LOG, expiry)
if KEYS[4] then
  redis.call('HSET', JOB, 'idem', KEYS[4])
  redis.call('SET', KEYS[4], id .. ' ' .. body, 'PX', expiry)
end
return { 'created' }
