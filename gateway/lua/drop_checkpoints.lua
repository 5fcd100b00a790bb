-- drop_checkpoints(saved, names, order | run, attempt, id, ...)
-- Delete these checkpoints, their writes, and the values that no other checkpoint needs. A thread of which nothing is
-- left has no key; but an attempt that is not the first leaves the fence against older ones (`fence_checkpoints`).
-- Answers {'ok', how many of them there were}, or {'left'}: a newer attempt at this run has been here.
if is_fenced(ARGV[1], ARGV[2]) then return { 'left' } end
local dropped = 0
for index = 3, #ARGV do dropped = dropped + drop(ARGV[index]) end
settle()
if tonumber(ARGV[2]) < 2 and redis.call('ZCARD', NAMES) == 0 then redis.call('UNLINK', SAVED, NAMES, ORDER) end
return { 'ok', dropped }
