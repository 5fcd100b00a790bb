-- uncount(live, kept, bytes | id, left_ms, record_left_ms)
-- A stream that has ended, and was counted for as long as it was to wait, is kept for a shorter time now. It is looked
-- at again, as one that is not known to have ended; `left_ms` say how long log and record were kept until now.
-- Answers {'ok'} or {'none'}: it was not counted yet.
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local SPARE_MS = 5000
local id, found = ARGV[1], false
for at, name in ipairs({ id, id .. '.' }) do
  local ends = NOW + tonumber(ARGV[at + 1])
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ends - SPARE_MS, ends + SPARE_MS)) do
    local one, size = string.match(member, '^(%S+) (%d+)$')
    if one == name then
      redis.call('ZREM', KEYS[2], member)
      redis.call('DECRBY', KEYS[3], size)
      found = true
    end
  end
end
if not found then return { 'none' } end
redis.call('ZADD', KEYS[1], 0, id)
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[3]), 60000)) end
return { 'ok' }
