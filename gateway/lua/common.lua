-- Stands before every script. Time is Redis's own; ended states are the protocol's terminal ones.
-- Keys, in all scripts: 1 job (hash), 2 log (string), 3 open (sorted set); all of one bucket, so of one slot.
-- Where a script takes several streams, it sets these three for each.
local JOB, LOG, OPEN = KEYS[1], KEYS[2], KEYS[3]
local ENDED = { done = true, failed = true, cancelled = true }
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local UNSTORED_MS = 7000 -- how long the end of a stream that is not to be stored can be read

-- A lease that ends further away than its own length was set by a clock that has since gone back: it is over.
local function lease_left(lease, lease_ms)
  local left = tonumber(lease or 0) - NOW
  if left > tonumber(lease_ms or 0) then return 0 end
  return math.max(left, 0)
end

-- For how many ms from now the log is kept, and for how many the record is. The log of an ended stream is kept for
-- the retention (keep_ms), that of one that waits for an answer for thread_ms if that is longer, that of any other for
-- open_ms, and the record is kept for tombstone_ms longer than its log.
-- A record without open_ms was made by an earlier release, which kept every log for the retention. While a webhook
-- is to be sent the record is kept for told_ms at least, so that whoever deletes the stream finds what is to be sent.
-- Of a stream that is not to be stored, and is over, both are kept until erase_ms.
local function lifetimes()
  local job = redis.call('HMGET', JOB, 'status', 'keep_ms', 'tombstone_ms', 'open_ms', 'questions', 'thread_ms', 'told_ms',
    'erase_ms')
  if job[8] then
    local left = math.max(math.min(tonumber(job[8]) - NOW, UNSTORED_MS), 1)
    return left, left
  end
  local log_ms = tonumber(job[2])
  if job[5] then log_ms = math.max(log_ms, tonumber(job[6])) end
  if job[4] and not ENDED[job[1]] then log_ms = tonumber(job[4]) end
  return log_ms, math.max(log_ms + tonumber(job[3]), tonumber(job[7] or 0))
end

-- Set every expiry of a stream anew: those of the log and the idempotency key, and that of the record.
local function keep()
  local log_ms, job_ms = lifetimes()
  redis.call('PEXPIRE', LOG, log_ms)
  redis.call('PEXPIRE', JOB, job_ms)
  local idem = redis.call('HGET', JOB, 'idem')
  if idem and idem ~= '' then redis.call('PEXPIRE', idem, log_ms) end
end

-- When the time of a stream that has not ended is over, and the code with which the stream then ends. A stream may
-- wait for its first attempt for wait_ms, counted from its creation, and run for run_ms, counted from that attempt.
-- since_ms is the beginning of either. Answers nothing for a record that an earlier release made or claimed first.
-- Nobody is sent for a producer's stream: a producer must come within wait_ms of the creation, and of the end of the
-- last one's lease, which is as long. Then its time is over, however long it has run.
local function deadline()
  local job = redis.call('HMGET', JOB, 'since_ms', 'started_ms', 'wait_ms', 'run_ms', 'producer')
  local since, longest, code = tonumber(job[1]), tonumber(job[3]), 'wait_limit'
  if job[5] then
    code = 'producer_lost'
  elseif job[2] then
    longest, code = tonumber(job[4]), 'time_limit'
  end
  if since and longest then return since + longest, code end
end

-- The code with which this stream ends now, because its time is over and no worker holds it; else nothing. A stream
-- that was never confirmed expires by itself.
local function overdue()
  local job = redis.call('HMGET', JOB, 'status', 'confirmed', 'lease_end_ms', 'lease_ms', 'producer')
  if not job[1] or ENDED[job[1]] or not job[2] then return end
  if job[1] == 'running' then
    if lease_left(job[3], job[4]) > 0 then return end
    if job[5] and tonumber(job[3]) > NOW then return end -- the clock has gone back, and `ask` sets the lease anew
  end
  local at, code = deadline()
  if at and at <= NOW then return code end
end

-- When somebody should look at this stream: at the given time, or at the end of the stream's time if that is sooner.
-- The index outlives each of its members.
local function look_at(id, when)
  local at = deadline()
  if at and at > NOW then when = math.min(when, at) end
  redis.call('ZADD', OPEN, when, id)
  local _, job_ms = lifetimes()
  if redis.call('PTTL', OPEN) < job_ms then redis.call('PEXPIRE', OPEN, job_ms) end
end

-- What a retry of a failed stream needs: a hash beside the record, which lasts as long as the log.
local function kept() return string.gsub(JOB, ':job:', ':kept:', 1) end

-- What only a run needs is dropped: the input is somebody's prompt. Of a failed stream, which may be tried again, it
-- moves to its `kept` hash, without what tools have answered.
local function drop_run(failed)
  local name = kept()
  local run = { input = true, params = true, turn = true, graph = true, answer = true, carried = true, doubted = true }
  for _, field in ipairs(redis.call('HKEYS', JOB)) do
    local kind = string.sub(field, 1, 5)
    if run[field] or kind == 'ckpt:' or kind == 'tool:' then
      if failed and kind ~= 'tool:' then redis.call('HSET', name, field, redis.call('HGET', JOB, field)) end
      redis.call('HDEL', JOB, field)
    end
  end
  if failed then redis.call('PEXPIRE', name, (lifetimes())) end
end

-- The journal: what the owner is to be told of the stream, in the stream's own bucket, written by the script that makes
-- it so. An owner's keys are in another slot: `Projector` brings each entry there, and then takes it off. An entry has
-- its kind, its time, its number in the stream (`seq`), and the record's fields as they are now; the due index says when
-- somebody should look whether the process that has called this script has died before it could.
local TOLD = { 'owner', 'chain', 'thread', 'status', 'created_ms', 'started_ms', 'ended_ms', 'metadata', 'last_id',
  'finish_reason', 'error', 'usage', 'used', 'lost', 'pieces', 'paid', 'dropped', 'unstored' }
local LEFT_MS, JOURNAL_MS = 5000, 86400000
local function journal_of() return (string.gsub(JOB, ':job:', ':journal:', 1)) end

-- When somebody should look at this stream's journal. The index outlives each of its members.
local function due_at(id, when, ms)
  local due = string.gsub(JOB, ':job:.*$', ':due', 1)
  redis.call('ZADD', due, when, id)
  if redis.call('PTTL', due) < ms then redis.call('PEXPIRE', due, ms) end
end

-- These fields of the record, `prefix` before each name, behind what `list` has. A stream that is not to be stored tells
-- nobody its metadata.
local function told_into(list, prefix)
  local values = redis.call('HMGET', JOB, unpack(TOLD))
  local is_unstored = values[#TOLD]
  for i, name in ipairs(TOLD) do
    if values[i] and not (is_unstored and name == 'metadata') then
      list[#list + 1] = prefix .. name
      list[#list + 1] = values[i]
    end
  end
  return list
end

local function tell(id, kind, ...)
  local entry = { 'kind', kind, 'at', NOW, 'seq', redis.call('HINCRBY', JOB, 'told', 1), ... }
  told_into(entry, '')
  if redis.call('HEXISTS', JOB, 'questions') == 1 then
    entry[#entry + 1] = 'questions'
    entry[#entry + 1] = '[]'
  end
  local _, ms = lifetimes()
  ms = math.max(ms, JOURNAL_MS)
  redis.call('XADD', journal_of(), '*', unpack(entry))
  redis.call('PEXPIRE', journal_of(), ms)
  due_at(id, NOW + LEFT_MS, ms)
end

-- The first entry of each stream, whichever script comes first to a stream that is there for good. Answers 1 where this
-- call has written it, else 0.
local function tell_started(id)
  if redis.call('HEXISTS', JOB, 'told') == 1 then return 0 end
  tell(id, 'started')
  return 1
end

-- Each `stage` event of these frames. No other line of a frame can be such a line: data is one line of JSON.
local function tell_stages(id, frames)
  local from = 1
  while true do
    local _, at = string.find(frames, '\nevent: stage\ndata: ', from, true)
    if not at then return end
    from = string.find(frames, '\n', at + 1, true)
    tell(id, 'stage', 'stage', string.sub(frames, at + 1, from - 1))
  end
end

-- The key of the webhook that tells of this event, and the sets of those to be sent and of those given up.
local function webhook(id, event)
  local tag = string.sub(JOB, 1, string.find(JOB, '}', 1, true))
  return tag .. ':webhook:' .. id .. '_' .. event, tag .. ':outbox', tag .. ':undelivered'
end

-- A webhook of this stream may want to be told of this event: then it is put into the bucket's outbox, in the same step
-- as the event. It is due at once, or, with webhook_unseen_ms, so much later. What is sent is made of the log by whoever
-- sends it first; of a stream that is not to be stored it is made of fields of the record, as they are now. The outbox
-- outlives each of its members.
local function tell_webhook(id, event)
  local job = redis.call('HMGET', JOB, 'webhook', 'webhook_events', 'webhook_ms', 'webhook_unseen_ms', 'owner', 'questions',
    'unstored')
  if not job[1] or not string.find(job[2], ' ' .. event .. ' ', 1, true) then return end
  local entry, outbox = webhook(id, event)
  local wait = tonumber(job[4] or 0)
  local keep_ms = tonumber(job[3]) + wait
  redis.call('HSET', entry, 'stream', id, 'event', event, 'url', job[1], 'owner', job[5] or '', 'at_ms', NOW,
    'tries', 0, 'claims', 0, 'due_ms', NOW + wait, 'wait_ms', wait)
  if job[4] then redis.call('HSET', entry, 'unseen', 1) end
  if job[7] then
    redis.call('HSET', entry, unpack(told_into({ 'told:questions', job[6] and '[]' or 'null' }, 'told:')))
  elseif job[6] then
    redis.call('HSET', entry, 'questions', job[6])
  end
  redis.call('PEXPIRE', entry, keep_ms)
  redis.call('ZADD', outbox, NOW + wait, id .. '_' .. event)
  if redis.call('PTTL', outbox) < keep_ms then redis.call('PEXPIRE', outbox, keep_ms) end
  redis.call('HSET', JOB, 'told_ms', keep_ms)
end

-- A stream that is not to be stored is over, and its owner has been told: some seconds later nothing is left of it. Log,
-- record and idempotency key expire by themselves then (`keep`), and what stands in other slots goes with an entry of the
-- journal, which nobody reads as done before. `resumed`: another stream goes on from its checkpoints.
local function forget_unstored(id, resumed)
  local job = redis.call('HMGET', JOB, 'unstored', 'first')
  if not job[1] then return end
  redis.call('HSET', JOB, 'erase_ms', NOW + UNSTORED_MS)
  tell(id, 'erase', 'due_ms', NOW + UNSTORED_MS, 'first', job[2] or id, 'resumed', resumed and 1 or 0)
  keep()
end

-- The stream ends; the tombstone stays. One that waits for an answer keeps what the run that answers it needs.
local function finish(id, status)
  tell_started(id)
  redis.call('HSET', JOB, 'status', status, 'ended_ms', NOW)
  tell(id, redis.call('HEXISTS', JOB, 'questions') == 1 and 'waiting' or 'ended', 'spends', 1)
  redis.call('HDEL', JOB, 'lease_ms', 'lease_end_ms')
  if redis.call('HEXISTS', JOB, 'questions') == 0 then
    drop_run(status == 'failed' and redis.call('HEXISTS', JOB, 'unstored') == 0)
    tell_webhook(id, status)
    forget_unstored(id)
  else
    tell_webhook(id, 'interrupted')
  end
  redis.call('ZREM', OPEN, id)
  keep()
end

-- Append and publish in one step, with fields of the job. A block names the event before it, so a reader knows
-- whether it fits, and the time, so that a relay knows how late it is. A user that may not publish here (ACL) writes all
-- the same: the script would else end between the frames and the rest. Readers then find the events in the log.
local function publish(id, before, last, status, frames, ...)
  redis.call('APPEND', LOG, frames)
  redis.call('HSET', JOB, 'last_id', last, ...)
  redis.pcall('PUBLISH', 'live:' .. id, before .. ' ' .. last .. ' ' .. status .. ' ' .. NOW .. '\n' .. frames)
end
