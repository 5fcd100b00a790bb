-- confirm(job, log, open | id, grace_ms)
-- Confirm a stream after the queue's acknowledgement: raise its expiry to that of a stream that has not ended.
-- Returns {'ok'}, or {'unknown'} if the record has expired meanwhile.
local status = redis.call('HGET', JOB, 'status')
if not status then return { 'unknown' } end
redis.call('HSET', JOB, 'confirmed', 1)
if not ENDED[status] then
  tell_started(ARGV[1])
  keep()
  if status == 'queued' then look_at(ARGV[1], NOW + tonumber(ARGV[2])) end
end
return { 'ok' }
