-- This text is put before every script that gives a thread's turn to a stream.

local MOST = 1000 -- turns that are stored

-- Note that a stream now has the turn. The stream gets the next number in `turns` (sorted set), once. Clients that
-- follow the thread are woken.
local function took(thread, turns, id, ms)
  if redis.call('ZSCORE', turns, id) then return end
  redis.call('ZADD', turns, redis.call('HINCRBY', thread, 'turns', 1) - 1, id)
  redis.call('ZREMRANGEBYRANK', turns, 0, -1 - MOST)
  redis.call('PEXPIRE', turns, ms)
  redis.pcall('PUBLISH', 'turn:' .. thread, id)
end
