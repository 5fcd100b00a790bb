-- see(job, log, open | id)
-- Note that a reader has had the stream's terminal event. A webhook that is sent only if no reader has had this event
-- is deleted, unless a sender is already sending it.
-- Returns {'seen'} if there was such a webhook, else {'none'}.
local id, found = ARGV[1], false
for _, event in ipairs({ 'done', 'failed', 'cancelled', 'interrupted' }) do
  local entry, outbox = webhook(id, event)
  local told = redis.call('HMGET', entry, 'unseen', 'claims', 'tries')
  if told[1] and told[2] == '0' and told[3] == '0' then
    redis.call('DEL', entry)
    redis.call('ZREM', outbox, id .. '_' .. event)
    found = true
  end
end
if not found then return { 'none' } end
if redis.call('EXISTS', JOB) == 1 then
  redis.call('HDEL', JOB, 'told_ms')
  keep()
end
return { 'seen' }
