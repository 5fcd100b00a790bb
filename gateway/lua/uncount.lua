-- uncount(live, kept, bytes | gone, id, left_ms, record_left_ms, ...)
-- Subtract the bytes of ended streams that are now kept for a shorter time, or are deleted. The `left_ms` values say
-- how long log and record would have been kept. A deleted stream (`gone` is '1') loses its place. Any other stream is
-- checked again, like a stream that is not known to have ended.
-- Returns {'ok'} or {'none'}: none of the streams was counted yet.
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local SPARE_MS = 5000
local gone, counted, longest = ARGV[1] == '1', false, 60000
for place = 2, #ARGV, 3 do
  local id, found = ARGV[place], false
  for at, name in ipairs({ id, id .. '.' }) do
    local left = tonumber(ARGV[place + at])
    local ends = NOW + left
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ends - SPARE_MS, ends + SPARE_MS)) do
      local one, size = string.match(member, '^(%S+) (%d+)$')
      if one == name then
        redis.call('ZREM', KEYS[2], member)
        redis.call('DECRBY', KEYS[3], size)
        found = true
      end
    end
    longest = math.max(longest, left)
  end
  if gone then
    redis.call('ZREM', KEYS[1], id)
  elseif found then
    redis.call('ZADD', KEYS[1], 0, id)
  end
  counted = counted or found
end
if not counted then return { 'none' } end
if not gone and redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], longest) end
return { 'ok' }
