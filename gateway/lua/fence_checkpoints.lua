-- fence_checkpoints(saved, names, order | run, attempt, ms, empty)
-- From now on no older attempt at this run changes the thread. Where `empty` is not empty, all of the thread is deleted
-- before that.
-- Answers {'ok'} (also for our own call again), or {'left'}: a newer attempt has been here.
local run, attempt = ARGV[1], tonumber(ARGV[2])
if is_fenced(run, attempt) then return { 'left' } end
if ARGV[4] ~= '' then redis.call('UNLINK', SAVED, NAMES, ORDER) end
if attempt > 1 then -- there is no older one than the first
  set('a' .. run, ARGV[2])
  keep(ARGV[3])
end
return { 'ok' }
