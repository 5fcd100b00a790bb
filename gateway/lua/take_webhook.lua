-- take_webhook(entry, outbox, undelivered, job, log | name, token, lease_ms)
-- Take a webhook to send it: the sender has it for the time of a lease. A second call with the same token renews the
-- lease.
-- Returns {'taken', field, value, ...}, {'wait', ms} (the webhook is not due, or another sender has it) or
-- {'unknown'} (it was delivered, given up or deleted).
local token, lease = ARGV[2], tonumber(ARGV[3])
local told = redis.call('HMGET', ENTRY, 'stream', 'token', 'due_ms', 'wait_ms', 'dead')
if not told[1] then
  forget()
  return { 'unknown' }
end
if told[5] then
  redis.call('ZREM', OUTBOX, NAME)
  return { 'unknown' }
end
if told[2] ~= token then
  local left = tonumber(told[3]) - NOW
  if left > 0 and left <= tonumber(told[4]) then
    redis.call('ZADD', OUTBOX, NOW + left, NAME)
    return { 'wait', left }
  end
  redis.call('HSET', ENTRY, 'token', token)
  redis.call('HINCRBY', ENTRY, 'claims', 1)
end
due_in(lease)
local answer = { 'taken' }
for _, item in ipairs(redis.call('HGETALL', ENTRY)) do answer[#answer + 1] = item end
return answer
