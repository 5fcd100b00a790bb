-- redrive_webhook(entry, outbox, undelivered, job, log | name, keep_ms)
-- Make a webhook due now and give it all its tries again. The webhook was given up, or waits for its next try. Its
-- body and its id do not change.
-- Returns {'due'} or {'unknown'}.
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
