-- look(job, log, open | owner, any)
-- A stream as its readers may know it, without the input. Another's is the same as none, found out by the same
-- steps; `any` is for who shows a token of this very stream.
-- `over` is the code of a stream whose time is over, or empty: who looks may end such a stream by give_up.
-- Answers {'found', NOW, log_end, over, field, value, ...} or {'unknown', NOW}.
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
