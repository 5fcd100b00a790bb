-- admit(live, starts, kept, bytes, looked | id, most_streams, most_starts, most_bytes, keep_ms,
--       seen, word, bytes, left_ms, record_bytes, record_left_ms, ...)
-- Give a caller a place for one more stream, if the caller is within its limits. All keys belong to the caller, so
-- they are in one slot.
-- live: streams that are not known to have ended, by the time of their last check. starts: streams started in the
-- last minute.
-- kept: the storage that ended streams still use, by its expiry. `id bytes` is for the log. `id. bytes` is for the
-- record, which stays as a tombstone after the log. bytes: the sum of these sizes.
-- The caller has just checked `seen` streams: running, ended (with both sizes), making (not confirmed), or gone. So
-- nothing has to report the end of a stream, and a process that dies leaves nothing counted. A young stream without a
-- record is still being made.
-- Returns {'ok', live} (also if the id already has its place), {'streams'|'starts'|'bytes', retry_ms}, or {'look'}:
-- check all streams in `live` and call again.
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
    since = NOW -- its record expires within a minute; then the stream is gone
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
redis.call('ZREMRANGEBYSCORE', STARTS, NOW + AHEAD_MS, '+inf') -- the clock was set back after these starts

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
