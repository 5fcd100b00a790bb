-- see(job, log, open | id)
-- A reader has had the stream's terminal event: a webhook that is sent only where nobody has it is sent no more, unless
-- somebody is sending it already.
-- Answers {'seen'} when there was such a webhook, else {'none'}.
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
