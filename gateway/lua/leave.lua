-- leave(thread, turns | id)
-- Remove a stream that has ended from its thread. If it has the turn, the first waiting stream gets the turn.
-- With an empty id, the script gives a turn that no stream has. No stream gets the turn before all streams in
-- `leaving` have left.
-- Returns {'next', id} (also when the same call is repeated), {'idle'} (no stream waits) or {'other'} (another stream
-- has the turn, or a stream is leaving).
local id = ARGV[1]
local thread = redis.call('HMGET', KEYS[1], 'holder', 'waiting', 'leaving', 'left', 'ms')
if not thread[1] then return { 'idle' } end
local function without(list)
  local answer = ''
  for one in string.gmatch(list, '(%S+)') do
    if one ~= id and one ~= id .. '!' then answer = answer .. one .. ' ' end
  end
  return answer
end
local holder, waiting, leaving = thread[1], without(thread[2]), without(thread[3])
local is_given = id ~= '' and thread[4] == id and holder ~= ''
if holder == id then holder = '' end
if holder == '' and leaving == '' and waiting ~= '' then
  holder, waiting = string.match(waiting, '^(%S+) (.*)$')
  is_given = true
  redis.call('HSET', KEYS[1], 'left', id)
end
redis.call('HSET', KEYS[1], 'holder', holder, 'waiting', waiting, 'leaving', leaving)
redis.call('PEXPIRE', KEYS[1], thread[5])
if is_given then
  took(KEYS[1], KEYS[2], holder, thread[5])
  return { 'next', holder }
end
if holder ~= '' or leaving ~= '' then return { 'other' } end
return { 'idle' }
