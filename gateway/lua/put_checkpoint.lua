-- put_checkpoint(saved, names, order, [thread] | by, attempt, id, parent, run, needs, delta, ms, most, checkpoint,
-- metadata, value, data, ...)
-- Store a checkpoint. `parent` is an id or empty. `needs` has the names of its values, each after a space. `delta` is
-- empty if the checkpoint's state does not need the writes of its ancestors. The arguments `value, data` are the new
-- values. With `thread`, only the run that has the thread's turn may write. `by` is the run that writes, and
-- `attempt` is its attempt; `run` is the run that made the checkpoint.
-- Returns {'ok'} (also when the same call is repeated because its answer was lost), {'full'}, {'more'} (call again:
-- old checkpoints were dropped, and more must be dropped), {'gone'} (a value is not stored and not in the arguments,
-- because the parent checkpoint was deleted or lost) or {'left'} (the run does not have the turn of its thread, or a
-- newer attempt at it has written to the thread).
local id, parent, run, needs, delta = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
if is_fenced(ARGV[1], ARGV[2]) or not may_write(run) then return { 'left' } end
local head = ':' .. parent .. ' :' .. run .. needs
local before = redis.call('HGET', SAVED, 'h' .. id)
if not before then
  local needed = 5 * (#id + EACH) + #run + #head + #ARGV[10] + #ARGV[11]
  for index = 12, #ARGV, 2 do
    if redis.call('HEXISTS', SAVED, 'v' .. ARGV[index]) == 0 then
      needed = needed + 2 * (#ARGV[index] + EACH) + #ARGV[index + 1]
    end
  end
  local word = room(needed, tonumber(ARGV[9]), parent)
  settle()
  if word == 'full' then return { 'full' } end
  if word == 'more' then return { 'more' } end
  if parent ~= '' and redis.call('HEXISTS', SAVED, 'h' .. parent) == 0 then
    local given = {}
    for index = 12, #ARGV, 2 do given[ARGV[index]] = true end
    for value in needs_of(head) do
      if not given[value] and redis.call('HEXISTS', SAVED, 'v' .. value) == 0 then return { 'gone' } end
    end
  end
end
for index = 12, #ARGV, 2 do set('v' .. ARGV[index], ARGV[index + 1]) end
for value in needs_of(head) do need(value, 1) end
if before then
  for value in needs_of(before) do need(value, -1) end
  unname('r/' .. run_of(before) .. id)
else
  redis.call('ZADD', ORDER, redis.call('HINCRBY', SAVED, '#seq', 1), id)
end
set('h' .. id, head)
set('c' .. id, ARGV[10])
set('m' .. id, ARGV[11])
name('c' .. id)
if run ~= '' then name('r/' .. run .. id) end
if delta ~= '' then redis.call('HSET', SAVED, '#delta', 1) end
keep(ARGV[8])
return { 'ok' }
