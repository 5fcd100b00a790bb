-- feed(feed, feeding, running | keep_ms, tag, most, number)
-- Read an owner's feed after an event, which is named by its number and tag. Without a number, return the beginning
-- of a feed: the streams that ended in the last minute, the running streams, and the position after which to
-- continue.
-- Returns {'ok', position, id, tail, ...} (at most `most` events), {'begin', position, ended, running}, or {'lost'}:
-- the feed no longer has all events after that event.
local FEED, FEEDING, RUNNING = KEYS[1], KEYS[2], KEYS[3]
local tag, most, number = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local MINUTE_MS, PAGE = 60000, 100
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local feeding = redis.call('HMGET', FEEDING, 'last', 'number', 'dropped')

if number then
  local last, newest, dropped = feeding[1], tonumber(feeding[2] or -1), tonumber(feeding[3] or 0)
  local own = number .. '-' .. tonumber(tag, 16)
  if not last or number > newest or number < dropped then return { 'lost' } end
  if number == newest then
    if last == number .. '-' .. tag then return { 'ok', last } end
    return { 'lost' }
  end
  if redis.call('EXISTS', FEED) == 0 then return { 'lost' } end
  local stands = redis.call('XRANGE', FEED, number, number, 'COUNT', 1)[1]
  if stands and stands[1] ~= own then return { 'lost' } end
  local answer = { 'ok', last }
  for _, entry in ipairs(redis.call('XRANGE', FEED, (number + 1) .. '-0', '+', 'COUNT', most)) do
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = entry[2][8]
  end
  return answer
end

if not feeding[1] then
  feeding[1] = '0-' .. tag
  redis.call('HSET', FEEDING, 'last', feeding[1], 'number', 0)
end
redis.call('PEXPIRE', FEEDING, ARGV[1])
local ended, to, is_recent = {}, '+', true
while is_recent do
  local page = redis.call('XREVRANGE', FEED, to, '-', 'COUNT', PAGE)
  for _, entry in ipairs(page) do
    local told = entry[2]
    is_recent = is_recent and NOW - tonumber(told[4]) <= MINUTE_MS
    if is_recent and told[2] == 'ended' then ended[#ended + 1] = told[8] end
    to = '(' .. entry[1]
  end
  is_recent = is_recent and #page == PAGE
end
return { 'begin', feeding[1], ended, redis.call('HVALS', RUNNING) }
