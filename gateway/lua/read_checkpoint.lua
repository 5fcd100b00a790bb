-- read_checkpoint(saved, names, order | namespace, id, size)
-- Read a checkpoint with its values and writes. Without an id, read the newest checkpoint of the namespace. If `size`
-- is not empty, return only the number of bytes.
-- Returns {'none'}, {'ok', id, head, checkpoint, metadata, {value, data, ...}, {/task/index, data, ...}} or {'size',
-- bytes}.
local id = ARGV[2]
if id == '' then id = newest_of(ARGV[1]) end
local head = id and redis.call('HGET', SAVED, 'h' .. id)
if not head then return { 'none' } end
local first = 'w' .. id
local written = redis.call('ZRANGEBYLEX', NAMES, '[' .. first .. '/', '(' .. first .. '0')
if ARGV[3] ~= '' then
  local size = redis.call('HSTRLEN', SAVED, 'c' .. id) + redis.call('HSTRLEN', SAVED, 'm' .. id)
  for value in needs_of(head) do size = size + redis.call('HSTRLEN', SAVED, 'v' .. value) end
  for _, write in ipairs(written) do size = size + redis.call('HSTRLEN', SAVED, write) end
  return { 'size', size }
end
local values, writes = {}, {}
for value in needs_of(head) do
  local data = redis.call('HGET', SAVED, 'v' .. value)
  if data then
    values[#values + 1] = value
    values[#values + 1] = data
  end
end
for _, write in ipairs(written) do
  writes[#writes + 1] = string.sub(write, #first + 1)
  writes[#writes + 1] = redis.call('HGET', SAVED, write)
end
local checkpoint, metadata = redis.call('HGET', SAVED, 'c' .. id), redis.call('HGET', SAVED, 'm' .. id)
return { 'ok', id, head, checkpoint, metadata, values, writes }
