-- project(feed, feeding, running, seen, spent, minute | seq, kind, read_ms, channel, name, tag, tail, keep_ms,
--         seen_ms, feed_ms, at, day, input, output)
-- Turn an entry of a stream's journal into the next event of its owner's feed, once. `seen` has the number of the
-- stream's last entry that was projected. Each stream has one `started` and one `ended` event, even if the store has
-- lost the count. `tail` is the frame without its id, and `name` stands for the stream. The tokens that the stream
-- has used are counted in the same step.
-- An entry that was read too long ago may have been projected, and `seen` may have expired: the caller must read it
-- again.
-- Returns {'ok', position}, {'again'} (it was already projected) or {'stale'}.
local FEED, FEEDING, RUNNING, SEEN, SPENT, MINUTE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local seq, kind, channel, name, tag, tail = tonumber(ARGV[1]), ARGV[2], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local keep_ms, seen_ms, feed_ms, at, day = ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local input, output = tonumber(ARGV[13]), tonumber(ARGV[14])
local MOST, MOST_BYTES, MOST_DROPS, STALE_MS, DAY_MS, MINUTE_MS = 10000, 4194304, 100, 600000, 86400000, 60000
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if NOW - tonumber(ARGV[3]) > STALE_MS then return { 'stale' } end
local seen = redis.call('HMGET', SEEN, 'seq', 'started', 'ended')
local is_end = kind == 'ended' and not seen[3]
if seen[3] or (kind == 'started' and seen[2]) then return { 'again' } end
if seq <= tonumber(seen[1] or 0) and not is_end then return { 'again' } end
redis.call('HSET', SEEN, 'seq', math.max(seq, tonumber(seen[1] or 0)), kind, 1)
redis.call('PEXPIRE', SEEN, is_end and seen_ms or keep_ms)

if redis.call('EXISTS', FEED) == 0 then -- the whole feed has expired
  redis.call('HSET', FEEDING, 'bytes', 0, 'dropped', redis.call('HGET', FEEDING, 'number') or 0)
end
local before = redis.call('HGET', FEEDING, 'last') or '0-' .. tag
local number = redis.call('HINCRBY', FEEDING, 'number', 1)
local last = number .. '-' .. tag
redis.call('HSET', FEEDING, 'last', last)
redis.call('HINCRBY', FEEDING, 'bytes', #tail)
redis.call('XADD', FEED, number .. '-' .. tonumber(tag, 16), 'kind', kind, 'at', NOW, 'name', name, 'tail', tail)
-- Drop old events. If the clock was set back, no event becomes older by it.
for _ = 1, MOST_DROPS do
  local first = redis.call('XRANGE', FEED, '-', '+', 'COUNT', 1)[1]
  local old = first[2]
  local is_full = redis.call('XLEN', FEED) > MOST or tonumber(redis.call('HGET', FEEDING, 'bytes')) > MOST_BYTES
  if not (is_full or NOW - tonumber(old[4]) > feed_ms) then break end
  if redis.call('XLEN', FEED) == 1 then break end
  redis.call('XDEL', FEED, first[1])
  redis.call('HINCRBY', FEEDING, 'bytes', -#old[8])
  redis.call('HSET', FEEDING, 'dropped', string.match(first[1], '^%d+'))
end
redis.call('PEXPIRE', FEED, feed_ms)
redis.call('PEXPIRE', FEEDING, keep_ms)

if kind == 'ended' then
  redis.call('HDEL', RUNNING, name)
elseif kind ~= 'stage' then
  redis.call('HSET', RUNNING, name, number .. ' ' .. tail)
  redis.call('PEXPIRE', RUNNING, keep_ms)
end

if input + output > 0 then
  local today = tonumber(redis.call('HGET', SPENT, 'day') or 0)
  if day > today then redis.call('HSET', SPENT, 'day', day, 'input', 0, 'output', 0) end
  if day >= today then
    redis.call('HINCRBY', SPENT, 'input', input)
    redis.call('HINCRBY', SPENT, 'output', output)
    redis.call('PEXPIRE', SPENT, 2 * DAY_MS)
  end
  redis.call('ZADD', MINUTE, at, name .. ' ' .. input .. ' ' .. output)
  redis.call('ZREMRANGEBYSCORE', MINUTE, '-inf', NOW - MINUTE_MS)
  redis.call('ZREMRANGEBYRANK', MINUTE, 0, -MOST - 1)
  redis.call('PEXPIRE', MINUTE, MINUTE_MS)
end
redis.pcall('PUBLISH', 'live:' .. channel, before .. ' ' .. last .. '  ' .. NOW .. '\nid: ' .. last .. '\n' .. tail)
return { 'ok', last }
