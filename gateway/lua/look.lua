-- look(job, log, open | owner, any)
-- Read a stream as its readers may see it, without the input. A stream of another owner gets the same answer as an
-- unknown id, by the same steps. `any` is for a caller with a token for exactly this stream.
-- `over` is the code of a stream whose time is over, or empty: the caller may end such a stream by give_up.
-- Returns {'found', NOW, log_end, over, field, value, ...} or {'unknown', NOW}.
local owner = redis.call('HGET', JOB, 'owner')
if not owner or (ARGV[2] ~= '1' and owner ~= ARGV[1]) then return { 'unknown', NOW } end
local names = { 'owner', 'chain', 'status', 'attempt', 'failures', 'confirmed', 'last_id', 'created_ms', 'started_ms',
  'ended_ms', 'version', 'trace', 'metadata', 'stages', 'usage', 'error', 'finish_reason', 'retries',
  'questions', 'resumes', 'resumed_by', 'dropped', 'thread', 'first', 'tokens_ended',
  'webhook_ms', 'webhook_unseen_ms' }
local values = redis.call('HMGET', JOB, unpack(names))
local answer = { 'found', NOW, redis.call('STRLEN', LOG), overdue() or '' }
for i, name in ipairs(names) do
  if values[i] then
    answer[#answer + 1] = name
    answer[#answer + 1] = values[i]
  end
end
return answer
