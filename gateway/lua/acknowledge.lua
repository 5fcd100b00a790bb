-- acknowledge(job, log, open | id, entry, ...)
-- Delete these entries of the stream's journal, because they have been projected. With the last entry, the journal is
-- deleted and the stream leaves the due index. But a stream that waits for an answer is checked once more when its
-- log expires: then it stops waiting.
-- Returns {'ok'}, or {'more'}: there are other entries.
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
