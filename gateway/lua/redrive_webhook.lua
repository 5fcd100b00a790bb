-- redrive_webhook(entry, outbox, undelivered, job, log | name, keep_ms)
-- A webhook that was given up, or waits for its next try, is due now, with all its tries before it. What is sent, and
-- its id, stay as they are.
-- Answers {'due'} or {'unknown'}.
if redis.call('EXISTS', ENTRY) == 0 then
  forget()
  return { 'unknown' }
end
redis.call('ZREM', UNDELIVERED, NAME)
redis.call('HDEL', ENTRY, 'dead', 'token')
redis.call('HSET', ENTRY, 'tries', 0, 'claims', 0)
due_in(0)
last(tonumber(ARGV[2]))
return { 'due' }
