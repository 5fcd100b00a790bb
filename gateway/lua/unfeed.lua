-- unfeed(feed, feeding, running, seen | name, seen_ms)
-- Remove a deleted stream from its owner's feed, and accept no more events of this stream.
-- Returns {'ok'}.
local FEED, FEEDING, RUNNING, SEEN = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name, PAGE, from = ARGV[1], 100, '-'
while true do
  local page = redis.call('XRANGE', FEED, from, '+', 'COUNT', PAGE)
  for _, entry in ipairs(page) do
    if entry[2][6] == name then
      redis.call('XDEL', FEED, entry[1])
      redis.call('HINCRBY', FEEDING, 'bytes', -#entry[2][8])
    end
    from = '(' .. entry[1]
  end
  if #page < PAGE then break end
end
redis.call('HDEL', RUNNING, name)
redis.call('HSET', SEEN, 'started', 1, 'ended', 1)
redis.call('PEXPIRE', SEEN, ARGV[2])
return { 'ok' }
