-- read_checkpoint(saved, names, order | namespace, id)
-- A checkpoint with its values and writes; without an id the newest of the namespace.
-- Answers {'none'} or {'ok', id, head, checkpoint, metadata, {value, data, ...}, {/task/index, data, ...}}.
local id = ARGV[2]
if id == '' then id = newest_of(ARGV[1]) end
local head = id and redis.call('HGET', SAVED, 'h' .. id)
if not head then return { 'none' } end
local values, writes = {}, {}
for value in needs_of(head) do
  local data = redis.call('HGET', SAVED, 'v' .. value)
  if data then
    values[#values + 1] = value
    values[#values + 1] = data
  end
end
local first = 'w' .. id
for _, write in ipairs(redis.call('ZRANGEBYLEX', NAMES, '[' .. first .. '/', '(' .. first .. '0')) do
  writes[#writes + 1] = string.sub(write, #first + 1)
  writes[#writes + 1] = redis.call('HGET', SAVED, write)
end
local checkpoint, metadata = redis.call('HGET', SAVED, 'c' .. id), redis.call('HGET', SAVED, 'm' .. id)
return { 'ok', id, head, checkpoint, metadata, values, writes }
