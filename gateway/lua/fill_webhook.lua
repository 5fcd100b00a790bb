-- fill_webhook(entry, outbox, undelivered, job, log | name, token, body)
-- Store a webhook's body before it is sent for the first time. The body never changes: each try sends the same bytes.
-- Returns {'filled', body} (the stored body), {'fenced'} (another sender has the webhook) or {'unknown'}.
local told = redis.call('HMGET', ENTRY, 'token', 'body')
if redis.call('EXISTS', ENTRY) == 0 then return { 'unknown' } end
if told[1] ~= ARGV[2] then return { 'fenced' } end
if not told[2] then redis.call('HSET', ENTRY, 'body', ARGV[3]) end
return { 'filled', told[2] or ARGV[3] }
