-- acknowledge(job, log, open | id, entry, ...)
-- These entries of the stream's journal are projected. With the last one the journal goes, and the stream leaves the
-- due index; but one that waits for an answer is looked at once more as its log expires: then it waits no longer.
-- Answers {'ok'}, or {'more'}: there are other entries.
local id, SPARE_MS = ARGV[1], 1000
if #ARGV > 1 then redis.call('XDEL', journal_of(), unpack(ARGV, 2)) end
if redis.call('XLEN', journal_of()) > 0 then return { 'more' } end
redis.call('DEL', journal_of())
if redis.call('HEXISTS', JOB, 'questions') == 1 then
  local left = redis.call('PTTL', LOG) - SPARE_MS
  if left > 0 then
    local _, ms = lifetimes()
    due_at(id, NOW + left, math.max(ms, JOURNAL_MS))
    return { 'ok' }
  end
  redis.call('HDEL', JOB, 'questions', 'pending')
  drop_run()
  tell(id, 'ended')
  return { 'more' }
end
redis.call('ZREM', (string.gsub(JOB, ':job:.*$', ':due', 1)), id)
return { 'ok' }
