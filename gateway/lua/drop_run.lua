-- drop_run(saved, names, order, memory | run)
-- Delete a run's checkpoints from its thread, and the text of the run in the thread's memory.
-- Returns {'ok'} or {'more'}: call again.
local first, dropped = 'r/' .. ARGV[1], 0
local found = redis.call('ZRANGEBYLEX', NAMES, '[' .. first .. '/', '(' .. first .. '0', 'LIMIT', 0, MOST_DROPPED)
for _, member in ipairs(found) do
  dropped = dropped + drop(string.sub(member, #first + 1))
  redis.call('ZREM', NAMES, member)
end
settle()
if dropped > 0 and redis.call('ZCARD', NAMES) == 0 then redis.call('UNLINK', SAVED, NAMES, ORDER) end
for _, said in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do
  if string.sub(said, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then redis.call('LREM', KEYS[4], 1, said) end
end
if #found == MOST_DROPPED then return { 'more' } end
return { 'ok' }
