-- drop_checkpoints(saved, names, order | run, attempt, id, ...)
-- Delete these checkpoints, their writes, and the values that no other checkpoint needs. A thread that becomes empty
-- has no keys. But an attempt that is not the first leaves the fence against older attempts (`fence_checkpoints`).
-- Returns {'ok', how many checkpoints existed}, or {'left'}: a newer attempt at this run has written to the thread.
if is_fenced(ARGV[1], ARGV[2]) then return { 'left' } end
local dropped = 0
for index = 3, #ARGV do dropped = dropped + drop(ARGV[index]) end
settle()
if tonumber(ARGV[2]) < 2 and redis.call('ZCARD', NAMES) == 0 then redis.call('UNLINK', SAVED, NAMES, ORDER) end
return { 'ok', dropped }
