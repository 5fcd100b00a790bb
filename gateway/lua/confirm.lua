-- confirm(job, log, open | id, grace_ms)
-- After the queue's own acknowledgement: raises the expiry to that of a stream that has not ended.
-- Answers {'ok'}, or {'unknown'} when the record has expired meanwhile.
local status = redis.call('HGET', JOB, 'status')
if not status then return { 'unknown' } end
redis.call('HSET', JOB, 'confirmed', 1)
if not ENDED[status] then
  tell_started(ARGV[1])
  keep()
  if status == 'queued' then look_at(ARGV[1], NOW + tonumber(ARGV[2])) end
end
return { 'ok' }
