-- admit(live, starts, kept, bytes, looked | id, most_streams, most_starts, most_bytes, keep_ms,
--       seen, word, bytes, left_ms, record_bytes, record_left_ms, ...)
-- A caller's place for one more stream, by what it has: all keys are the caller's own, so of one slot.
-- live: streams not known to have ended, by when they were looked at last. starts: those of the last minute.
-- kept: what ended ones still hold, by when it expires: `id bytes` for the log and `id. bytes` for the record, which
-- stays as a tombstone when the log has gone; bytes: the sum of these.
-- `seen` streams were looked at just now: running, ended (with both sizes), making (not confirmed), or gone. So
-- nobody has to tell when a stream ends, and a caller that dies leaves nothing counted. A young one without a
-- record is being made.
-- Answers {'ok', live} (also for an id that has its place), {'streams'|'starts'|'bytes', retry_ms}, or {'look'}:
-- look at all of `live` and ask again.
local LIVE, STARTS, KEPT, BYTES, LOOKED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, most_streams, most_starts, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local keep_ms, MINUTE_MS, MAKING_MS, AHEAD_MS = ARGV[5], 60000, 60000, 1000
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

if redis.call('ZSCORE', LIVE, id) then return { 'ok', redis.call('ZCARD', LIVE) } end

local function keep(name, size, left)
  if left <= 0 then return end
  redis.call('ZADD', KEPT, NOW + left, name .. ' ' .. size)
  redis.call('INCRBY', BYTES, size)
  redis.call('PEXPIRE', KEPT, keep_ms)
  redis.call('PEXPIRE', BYTES, keep_ms)
end

local seen = (#ARGV - 5) / 6
for i = 6, #ARGV, 6 do
  local one, word = ARGV[i], ARGV[i + 1]
  local since = tonumber(redis.call('ZSCORE', LIVE, one) or NOW)
  if word == 'running' then
    redis.call('ZADD', LIVE, 'XX', NOW, one)
  elseif word == 'making' then
    since = NOW -- it expires within a minute, and is gone then
  elseif word == 'ended' or since <= NOW - MAKING_MS or since > NOW + AHEAD_MS then
    if redis.call('ZREM', LIVE, one) == 1 and word == 'ended' then
      keep(one, ARGV[i + 2], tonumber(ARGV[i + 3]))
      keep(one .. '.', ARGV[i + 4], tonumber(ARGV[i + 5]))
    end
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEPT, '-inf', NOW, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEPT, member)
  redis.call('DECRBY', BYTES, string.match(member, ' (%d+)$'))
end
if redis.call('EXISTS', KEPT) == 0 then redis.call('DEL', BYTES) end
redis.call('ZREMRANGEBYSCORE', STARTS, '-inf', NOW - MINUTE_MS)
redis.call('ZREMRANGEBYSCORE', STARTS, NOW + AHEAD_MS, '+inf') -- the clock has gone back since

local function until_first(key, more_ms)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return math.max(tonumber(first[2] or NOW) + more_ms - NOW, 0)
end
local live = redis.call('ZCARD', LIVE)
if live >= most_streams then
  if live > seen and redis.call('SET', LOOKED, 1, 'NX', 'PX', 1000) then return { 'look' } end
  return { 'streams', 0 }
end
if redis.call('ZCARD', STARTS) >= most_starts then return { 'starts', until_first(STARTS, MINUTE_MS) } end
if tonumber(redis.call('GET', BYTES) or 0) >= most_bytes then return { 'bytes', until_first(KEPT, 0) } end
redis.call('ZADD', LIVE, NOW, id)
redis.call('ZADD', STARTS, NOW, id)
redis.call('PEXPIRE', LIVE, keep_ms)
redis.call('PEXPIRE', STARTS, MINUTE_MS)
return { 'ok', live + 1 }
