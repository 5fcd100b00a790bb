-- put_checkpoint(saved, names, order, [thread] | id, parent, run, needs, delta, ms, most, checkpoint, metadata, value,
-- data, ...)
-- Store a checkpoint. `parent` is an id or empty, `needs` the names of its values, each after a space, `delta` empty
-- where its state needs no writes of its ancestors. Those values are given that are new. With `thread` only the run
-- that has the thread's turn may write.
-- Answers {'ok'} (also for our own call again: its answer was lost), {'full'}, {'more'} (ask again: old checkpoints
-- were dropped, and more have to be), {'gone'}: a value is neither stored nor given, since the checkpoint that this
-- one goes on from was deleted or lost, or {'left'}: the run has not the turn of its thread.
local id, parent, run, needs, delta = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not may_write(run) then return { 'left' } end
local head = ':' .. parent .. ' :' .. run .. needs
local before = redis.call('HGET', SAVED, 'h' .. id)
if not before then
  local needed = 5 * (#id + EACH) + #run + #head + #ARGV[8] + #ARGV[9]
  for index = 10, #ARGV, 2 do
    if redis.call('HEXISTS', SAVED, 'v' .. ARGV[index]) == 0 then
      needed = needed + 2 * (#ARGV[index] + EACH) + #ARGV[index + 1]
    end
  end
  local word = room(needed, tonumber(ARGV[7]), parent)
  settle()
  if word == 'full' then return { 'full' } end
  if word == 'more' then return { 'more' } end
  if parent ~= '' and redis.call('HEXISTS', SAVED, 'h' .. parent) == 0 then
    local given = {}
    for index = 10, #ARGV, 2 do given[ARGV[index]] = true end
    for value in needs_of(head) do
      if not given[value] and redis.call('HEXISTS', SAVED, 'v' .. value) == 0 then return { 'gone' } end
    end
  end
end
for index = 10, #ARGV, 2 do set('v' .. ARGV[index], ARGV[index + 1]) end
for value in needs_of(head) do need(value, 1) end
if before then
  for value in needs_of(before) do need(value, -1) end
  unname('r/' .. run_of(before) .. id)
else
  redis.call('ZADD', ORDER, redis.call('HINCRBY', SAVED, '#seq', 1), id)
end
set('h' .. id, head)
set('c' .. id, ARGV[8])
set('m' .. id, ARGV[9])
name('c' .. id)
if run ~= '' then name('r/' .. run .. id) end
if delta ~= '' then redis.call('HSET', SAVED, '#delta', 1) end
keep(ARGV[6])
return { 'ok' }
