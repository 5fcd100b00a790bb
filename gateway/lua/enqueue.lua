-- enqueue(queue, jobs, starting | id, message, keep_ms)
-- Put a job into the queue and count it. A job that is sent again counts only once. Returns {'ok'}.
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('XADD', KEYS[1], '*', 'job', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], NOW, ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
return { 'ok' }
