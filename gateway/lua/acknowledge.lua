-- acknowledge(job, log, open | id, entry, ...)
-- These entries of the stream's journal are projected. With the last one the journal goes, and the stream leaves the
-- due index; but one that waits for an answer is looked at once more as its log expires: then it waits no longer.
-- Answers {'ok'}, {'more'}: there are other entries; or {'later', ms}: the next one's time comes then. A time that is
-- further away than it was ever to be was set by a clock that has since gone back: it has come.
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
