-- leave(thread, turns | id)
-- A stream that is over leaves its thread, wherever it is there: the turn that it has goes to the first that waits.
-- With an empty id the turn that nobody has is given. Nobody gets it before those that are `leaving` have left.
-- Answers {'next', id} (also for our own call again), {'idle'} (nobody waits) or {'other'} (another has the turn, or
-- somebody is leaving).
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
