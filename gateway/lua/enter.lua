-- enter(thread, streams, turns | id, over, after, strategy, most, ms, record_ms, name, chain)
-- Request the thread's turn for a stream. One stream at a time has the turn: `holder`. `over` is a holder that the
-- caller knows has ended, or empty. `after` is the newest stream that the caller continues, or `*` for any.
-- If another stream has the turn, `strategy` decides. `reject` refuses the stream. `enqueue` puts it behind the
-- waiting streams, which are at most `most`. `interrupt` and `rollback` replace all streams in the thread: their ids
-- are `leaving` until a process has ended them, and an id has `!` after it if its traces are deleted, too. `answer`
-- puts the stream before the waiting ones. `again` is for a stream that its thread may have lost: the stream is put
-- behind the waiting ones, and becomes the newest only if there is no newest.
-- Returns {'turn'}, {'waits'} (both also when the same call is repeated), {'busy', holder}, {'full', holder},
-- {'moved'}: another stream is the newest; or, to `again`, {'left'}: the thread knows the stream, which has already
-- left.
local id, over, after, strategy = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local thread = redis.call('HMGET', KEYS[1], 'holder', 'waiting', 'leaving', 'newest')
local holder, waiting, leaving = thread[1] or '', thread[2] or '', thread[3] or ''
if holder == id and leaving == '' then return { 'turn' } end
if holder == id or string.find(' ' .. waiting, ' ' .. id .. ' ', 1, true) then return { 'waits' } end
if after ~= '*' and after ~= (thread[4] or '') then return { 'moved' } end
local is_again = strategy == 'again'
if is_again and redis.call('ZSCORE', KEYS[2], id) then return { 'left' } end
local is_free = holder == '' or holder == over
local _, count = string.gsub(waiting, ' ', '')
local answer = { 'waits' }
if is_free and leaving == '' and (waiting == '' or strategy == 'answer') then
  holder, answer = id, { 'turn' }
elseif strategy == 'enqueue' or is_again then
  if count >= tonumber(ARGV[5]) then return { 'full', holder } end
  waiting = waiting .. id .. ' '
elseif strategy == 'interrupt' or strategy == 'rollback' then
  local mark = strategy == 'rollback' and '! ' or ' '
  local left = ' ' .. leaving
  for one in string.gmatch((is_free and '' or holder .. ' ') .. waiting, '(%S+)') do
    if not string.find(left, ' ' .. one .. ' ', 1, true) and not string.find(left, ' ' .. one .. '! ', 1, true) then
      leaving = leaving .. one .. mark
    end
  end
  waiting = id .. ' '
else
  return { 'busy', holder ~= '' and holder or string.match(waiting .. leaving, '^[^! ]*') }
end
redis.call('HSETNX', KEYS[1], 'created_ms', NOW)
redis.call('HSET', KEYS[1], 'holder', holder, 'waiting', waiting, 'leaving', leaving, 'updated_ms', NOW, 'ms', ARGV[6],
  'name', ARGV[8])
if not (is_again and thread[4]) then redis.call('HSET', KEYS[1], 'newest', id, 'chain', ARGV[9]) end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', NOW - tonumber(ARGV[7]))
redis.call('ZADD', KEYS[2], NOW, id)
redis.call('PEXPIRE', KEYS[2], ARGV[7])
if holder == id then took(KEYS[1], KEYS[3], id, ARGV[6]) end
return answer
