-- describe_thread(thread | metadata, ms, name)
-- Store a client's metadata of a thread. The thread may have had no stream so far. Returns {'ok'}.
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSETNX', KEYS[1], 'created_ms', NOW)
redis.call('HSET', KEYS[1], 'metadata', ARGV[1], 'updated_ms', NOW, 'ms', ARGV[2], 'name', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 'ok' }
