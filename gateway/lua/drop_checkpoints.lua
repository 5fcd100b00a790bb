-- drop_checkpoints(saved, names, order | id, ...)
-- Delete these checkpoints, their writes, and the values that no other checkpoint needs. A thread of which nothing is
-- left has no key.
-- Answers {'ok', how many of them there were}.
local dropped = 0
for _, id in ipairs(ARGV) do dropped = dropped + drop(id) end
settle()
if redis.call('ZCARD', NAMES) == 0 then redis.call('UNLINK', SAVED, NAMES, ORDER) end
return { 'ok', dropped }
