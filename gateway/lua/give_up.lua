-- give_up(job, log, open | id, tag, code, start, failed, error)
-- End a stream whose time is over and that no worker has, with the terminal frame of this code. `start` and `failed`
-- are the frames without their first line, the id. The start frame is written only if the log is gone. `error` is the
-- value that the record stores about the end.
-- Returns {'over'}, {'wait'} (the time is not over, or ends with another code; or a worker has the job), {'ended',
-- status} or {'unknown'}.
local id, tag = ARGV[1], ARGV[2]
local job = redis.call('HMGET', JOB, 'status', 'last_id')
if not job[1] then return { 'unknown' } end
if ENDED[job[1]] then return { 'ended', job[1] } end
if overdue() ~= ARGV[3] then return { 'wait' } end
local log_end, frames, last = redis.call('STRLEN', LOG), '', ''
for _, rest in ipairs(log_end == 0 and { ARGV[4], ARGV[5] } or { ARGV[5] }) do
  last = string.format('%d-%s', log_end + #frames, tag)
  frames = frames .. 'id: ' .. last .. '\n' .. rest
end
publish(id, job[2], last, 'failed', frames, 'error', ARGV[6])
finish(id, 'failed')
return { 'over' }
