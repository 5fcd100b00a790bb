-- fence_checkpoints(saved, names, order | run, attempt, ms, empty)
-- From now on, prevent older attempts at this run from changing the thread. If `empty` is not empty, the whole thread
-- is deleted first.
-- Returns {'ok'} (also when the same call is repeated), or {'left'}: a newer attempt has already done this.
local run, attempt = ARGV[1], tonumber(ARGV[2])
if is_fenced(run, attempt) then return { 'left' } end
if ARGV[4] ~= '' then redis.call('UNLINK', SAVED, NAMES, ORDER) end
if attempt > 1 then -- the first attempt has no older one
  set('a' .. run, ARGV[2])
  keep(ARGV[3])
end
return { 'ok' }
