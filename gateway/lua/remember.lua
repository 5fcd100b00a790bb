-- remember(thread, memory | run, ms, most_bytes, said)
-- Add the text of a run to the thread's memory, if the run has the thread's turn. The oldest texts are deleted if the
-- memory would have more than `most_bytes`.
-- Returns {'ok'} (also when the same call is repeated) or {'gone'}: the run does not have the turn.
local run, said = ARGV[1], ARGV[1] .. ' ' .. ARGV[4]
local thread = redis.call('HMGET', KEYS[1], 'holder', 'leaving')
local leaving = ' ' .. (thread[2] or '')
if thread[1] ~= run or string.find(leaving, ' ' .. run .. ' ', 1, true) or string.find(leaving, ' ' .. run .. '! ', 1, true) then
  return { 'gone' }
end
local size = #said
for _, one in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  if string.sub(one, 1, #run + 1) == run .. ' ' then
    redis.call('LREM', KEYS[2], 1, one)
  else
    size = size + #one
  end
end
while size > tonumber(ARGV[3]) do
  local first = redis.call('LPOP', KEYS[2])
  if not first then break end
  size = size - #first
end
redis.call('RPUSH', KEYS[2], said)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return { 'ok' }
