-- settle_webhook(entry, outbox, undelivered, job, log | name, token, word, outcome, pause_ms, keep_ms, most)
-- Store the result of a try. `sent`: the webhook is delivered, and its entry is deleted. `again`: the next try is due
-- after the pause. `back`: nothing was tried. `dead`: there is no next try. If the bucket has more than `most`
-- webhooks that were given up, the oldest ones are deleted.
-- Returns {'settled'}, {'fenced'} (another sender has the webhook, or this call came twice) or {'unknown'}.
local word, pause, keep_ms = ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local told = redis.call('HMGET', ENTRY, 'stream', 'token')
if not told[1] then return { 'unknown' } end
if told[2] ~= ARGV[2] then return { 'fenced' } end
if word == 'sent' then
  forget()
  -- If no other webhook of the stream has to be sent, the record now lasts like a record without a webhook: for its
  -- tombstone's time after the log.
  local tombstone = redis.call('HGET', JOB, 'tombstone_ms')
  for _, event in ipairs({ 'done', 'failed', 'cancelled', 'interrupted' }) do
    if redis.call('EXISTS', string.sub(ENTRY, 1, -#NAME - 1) .. told[1] .. '_' .. event) == 1 then tombstone = nil end
  end
  if tombstone then
    redis.call('HDEL', JOB, 'told_ms')
    local left = math.max(redis.call('PTTL', LOG), 0) + tonumber(tombstone)
    if redis.call('PTTL', JOB) > left then redis.call('PEXPIRE', JOB, left) end
  end
  return { 'settled' }
end
redis.call('HDEL', ENTRY, 'token')
if word == 'back' then
  redis.call('HINCRBY', ENTRY, 'claims', -1)
  due_in(pause)
  return { 'settled' }
end
redis.call('HINCRBY', ENTRY, 'tries', 1)
redis.call('HSET', ENTRY, 'claims', 0, 'outcome', ARGV[4])
if word == 'again' then
  due_in(pause)
else
  redis.call('HSET', ENTRY, 'dead', NOW)
  redis.call('ZREM', OUTBOX, NAME)
  redis.call('ZADD', UNDELIVERED, NOW, NAME)
  local more = redis.call('ZCARD', UNDELIVERED) - tonumber(ARGV[7])
  if more > 0 then
    local entry_of = string.sub(ENTRY, 1, -#NAME - 1)
    for _, name in ipairs(redis.call('ZRANGE', UNDELIVERED, 0, more - 1)) do redis.call('DEL', entry_of .. name) end
    redis.call('ZREMRANGEBYRANK', UNDELIVERED, 0, more - 1)
  end
end
last(keep_ms)
return { 'settled' }
