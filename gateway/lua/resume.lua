-- resume(job, log, open, new job, new log | id, new id, pending, digest, frame, grace_ms, field, value, ...)
-- Store the answer to a stream's questions and create the stream that continues with it, in one step: one never
-- exists without the other. `pending` has the ids of the answered questions, as the record stores them. The new
-- stream gets these fields, the data that the old stream has kept for it, and a place in the index: if no process
-- enqueues it now, the sweeper does.
-- Without a frame, the script only checks. `digest` is the digest of the answer.
-- Returns {'resumed', id, left_ms} (left_ms: how long the old stream's log would have been kept), {'resumed', id}
-- (the same answer again), {'answered', id} (another answer was first), {'waiting'} (to a check), {'unmatched'}
-- (these are not the questions), {'none'} (the stream has no open question) or {'unknown'}.
local COPIED = { 'input', 'params', 'metadata', 'thread', 'stopped_at', 'keyed', 'unstored' }
local new, pending, digest, frame = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local job = redis.call('HMGET', JOB, 'status', 'pending', 'resumed_by', 'answered')
if not job[1] then return { 'unknown' } end
if job[3] then
  if job[4] == digest then return { 'resumed', job[3] } end
  return { 'answered', job[3] }
end
if job[1] ~= 'done' or not job[2] then return { 'none' } end
if job[2] ~= pending then return { 'unmatched' } end
if not frame then return { 'waiting' } end
local names, given = COPIED, {}
for _, field in ipairs(redis.call('HKEYS', JOB)) do
  if string.sub(field, 1, 5) == 'ckpt:' and string.sub(field, 6, 6) ~= ' ' then names[#names + 1] = field end
end
for i, value in ipairs(redis.call('HMGET', JOB, unpack(names))) do
  if value then
    given[#given + 1] = names[i]
    given[#given + 1] = value
  end
end
local left = redis.call('PTTL', LOG)
redis.call('HSET', JOB, 'resumed_by', new, 'answered', digest)
redis.call('HDEL', JOB, 'questions', 'pending')
drop_run()
keep()
tell(ARGV[1], 'ended')
forget_unstored(ARGV[1], true)
JOB, LOG = KEYS[4], KEYS[5]
redis.call('HSET', JOB, 'status', 'queued', 'attempt', 0, 'failures', 0, 'since_ms', NOW, 'confirmed', 1)
redis.call('HSET', JOB, unpack(given))
redis.call('HSET', JOB, unpack(ARGV, 7))
redis.call('SET', LOG, frame)
tell_started(new)
keep()
look_at(new, NOW + tonumber(ARGV[6]))
return { 'resumed', new, left }
