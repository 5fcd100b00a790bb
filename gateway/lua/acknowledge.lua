-- acknowledge(job, log, open | id, entry, ...)
-- Delete these entries of the stream's journal, because they have been projected. With the last entry, the journal is
-- deleted and the stream leaves the due index. But a stream that waits for an answer is checked once more when its
-- log expires: then it stops waiting.
-- Returns {'ok'}, {'more'}: there are other entries, or {'later', ms}: the next entry must not be handled for so many ms.
-- A time that lies further ahead than any entry's time was set before the clock was set back: then it counts as over.
local id, SPARE_MS = ARGV[1], 1000
if #ARGV > 1 then redis.call('XDEL', journal_of(), unpack(ARGV, 2)) end
local first = redis.call('XRANGE', journal_of(), '-', '+', 'COUNT', 1)[1]
if first then
  local left = 0
  for i = 1, #first[2], 2 do
    if first[2][i] == 'due_ms' then left = tonumber(first[2][i + 1]) - NOW end
  end
  if left <= 0 or left > UNSTORED_MS then return { 'more' } end
  due_at(id, NOW + left, JOURNAL_MS)
  return { 'later', left }
end
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
  forget_unstored(id)
  return { 'more' }
end
redis.call('ZREM', (string.gsub(JOB, ':job:.*$', ':due', 1)), id)
return { 'ok' }
