-- cancel(job, log, open | id, tag)
-- Cancel a stream. This script writes the terminal frame itself, so a live stream ends at once, even if a worker has
-- it.
-- A stream that waits for an answer has ended: it keeps its log, and stops waiting.
-- Returns {'cancelled'}, {'dropped', left_ms} if the stream waited (left_ms: how long its log would have been kept),
-- {'ended', status} if the stream had ended, or {'unknown'}.
local id, tag = ARGV[1], ARGV[2]
local job = redis.call('HMGET', JOB, 'status', 'last_id')
if not job[1] then return { 'unknown' } end
if job[1] == 'done' and redis.call('HEXISTS', JOB, 'pending') == 1 then
  local left = redis.call('PTTL', LOG)
  redis.call('HSET', JOB, 'dropped', 1)
  redis.call('HDEL', JOB, 'questions', 'pending')
  drop_run()
  tell_webhook(id, 'cancelled')
  keep()
  tell(id, 'ended')
  forget_unstored(id)
  return { 'dropped', left }
end
if ENDED[job[1]] then return { 'ended', job[1] } end
local last = string.format('%d-%s', redis.call('STRLEN', LOG), tag)
publish(id, job[2], last, 'cancelled', 'id: ' .. last .. '\nevent: cancelled\ndata: {}\n\n')
finish(id, 'cancelled')
return { 'cancelled' }
