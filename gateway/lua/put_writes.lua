-- put_writes(saved, names, order, [thread] | by, attempt, id, run, ms, most, /task/index, mode, data, ...)
-- Store a task's writes. If a write is already stored, the mode `again` replaces it, and the mode `once` leaves it
-- unchanged. The checkpoint may be stored later.
-- Returns {'ok'}, {'full'}, {'more'} or {'left'}, as put_checkpoint does.
local id = ARGV[3]
if is_fenced(ARGV[1], ARGV[2]) or not may_write(ARGV[4]) then return { 'left' } end
local needed = 0
for index = 7, #ARGV, 3 do
  local field = 'w' .. id .. ARGV[index]
  local stands = redis.call('HEXISTS', SAVED, field) == 1
  if not stands then needed = needed + 2 * (#field + EACH) end
  if not stands or ARGV[index + 1] == 'again' then needed = needed + #ARGV[index + 2] end
end
local word = room(needed, tonumber(ARGV[6]), id)
settle()
if word == 'full' then return { 'full' } end
if word == 'more' then return { 'more' } end
for index = 7, #ARGV, 3 do
  local field = 'w' .. id .. ARGV[index]
  if ARGV[index + 1] == 'again' or redis.call('HEXISTS', SAVED, field) == 0 then
    set(field, ARGV[index + 2])
    name(field)
  end
end
keep(ARGV[5])
return { 'ok' }
