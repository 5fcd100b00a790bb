-- cancel(job, log, open | id, tag)
-- Writes the terminal frame itself, so a live stream ends in this moment, whoever holds it.
-- Answers {'cancelled'}, {'ended', status} when the stream had ended, or {'unknown'}.
local id, tag = ARGV[1], ARGV[2]
local job = redis.call('HMGET', JOB, 'status', 'last_id')
if not job[1] then return { 'unknown' } end
if ENDED[job[1]] then return { 'ended', job[1] } end
local last = string.format('%d-%s', redis.call('STRLEN', LOG), tag)
publish(id, job[2], last, 'cancelled', 'id: ' .. last .. '\nevent: cancelled\ndata: {}\n\n')
finish(id, 'cancelled')
return { 'cancelled' }
