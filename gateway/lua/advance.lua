-- advance(job, log, open | id, token, position, lines, next, course, lease_ms)
-- Count lines of a producer, from `lines` to `next`, without writing them: events of an earlier producer already say
-- the same. `course` is the producer's place in its stages after these lines. The lease is renewed.
-- Returns {'ok'} (also when the same call is repeated), {'moved'} (other lines were counted meanwhile, or the log has
-- grown), {'fenced'} (another producer has the stream), {'ended', status} or {'unknown'}.
local id, token, position, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[7])
local job = redis.call('HMGET', JOB, 'status', 'token', 'lines', 'course')
if not job[1] then return { 'unknown' } end
if ENDED[job[1]] then return { 'ended', job[1] } end
if job[1] ~= 'running' or job[2] ~= token then return { 'fenced' } end
if not (job[3] == ARGV[5] and job[4] == ARGV[6]) then
  if job[3] ~= ARGV[4] or redis.call('STRLEN', LOG) ~= position then return { 'moved' } end
  redis.call('HSET', JOB, 'lines', ARGV[5], 'course', ARGV[6])
end
redis.call('HSET', JOB, 'lease_ms', lease_ms, 'lease_end_ms', NOW + lease_ms)
look_at(id, NOW + lease_ms)
keep()
return { 'ok' }
