-- cancel(job, log, open | id, tag)
-- Writes the terminal frame itself, so a live stream ends in this moment, whoever holds it.
-- A stream that waits for an answer has ended: it keeps its log, and waits no more.
-- Answers {'cancelled'}, {'dropped', left_ms} when it waited (for how long its log was kept until now),
-- {'ended', status} when the stream had ended, or {'unknown'}.
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
