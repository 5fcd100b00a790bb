-- This text is put before every script of a stream. The time is Redis's own. The ended states are the protocol's
-- terminal ones.
-- Keys, in all these scripts: 1 job (hash), 2 log (string), 3 open (sorted set). All are in one bucket, so in one
-- slot.
-- A script for several streams sets these three variables for each stream.
local JOB, LOG, OPEN = KEYS[1], KEYS[2], KEYS[3]
local ENDED = { done = true, failed = true, cancelled = true }
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local UNSTORED_MS = 7000 -- how long the end of a stream that is not to be stored can be read

-- Return the ms that are left of a lease. A lease that ends later than its own length from now was set before the
-- clock was set back: such a lease is over.
local function lease_left(lease, lease_ms)
  local left = tonumber(lease or 0) - NOW
  if left > tonumber(lease_ms or 0) then return 0 end
  return math.max(left, 0)
end

-- Return for how many ms from now the log is kept, and for how many the record. The log of an ended stream is kept
-- for the retention (keep_ms). The log of a stream that waits for an answer is kept for thread_ms, if that is longer.
-- Every other log is kept for open_ms. The record is kept for tombstone_ms longer than its log.
-- A record without open_ms was made by an earlier release, which kept every log for the retention. While a webhook
-- has to be sent, the record is kept for at least told_ms, so that a deletion of the stream finds the webhook.
-- If the stream is not to be stored and has ended, both are kept until erase_ms.
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

-- Renew all expiries of a stream: those of the log, the idempotency key and the record.
local function keep()
  local log_ms, job_ms = lifetimes()
  redis.call('PEXPIRE', LOG, log_ms)
  redis.call('PEXPIRE', JOB, job_ms)
  local idem = redis.call('HGET', JOB, 'idem')
  if idem and idem ~= '' then redis.call('PEXPIRE', idem, log_ms) end
end

-- Return when the time of a stream that has not ended is over, and the code with which the stream then ends. A stream
-- may wait for its first attempt for wait_ms, counted from its creation. It may run for run_ms, counted from that
-- attempt. since_ms is the beginning of the current one of these times. Returns nothing for a record that an earlier
-- release made or claimed first.
-- No job is enqueued for a producer's stream. A producer must come within wait_ms of the creation, and within wait_ms
-- of the end of the last producer's lease. Otherwise the stream's time is over, however long it has run.
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

-- Return the code with which this stream must end now, because its time is over and no worker has it. Otherwise
-- return nothing. A stream that was never confirmed expires by itself.
local function overdue()
  local job = redis.call('HMGET', JOB, 'status', 'confirmed', 'lease_end_ms', 'lease_ms', 'producer')
  if not job[1] or ENDED[job[1]] or not job[2] then return end
  if job[1] == 'running' then
    if lease_left(job[3], job[4]) > 0 then return end
    if job[5] and tonumber(job[3]) > NOW then return end -- the clock was set back, and `ask` renews the lease
  end
  local at, code = deadline()
  if at and at <= NOW then return code end
end

-- Set when this stream must be checked: at the given time, or at the end of the stream's time if that is sooner. The
-- index outlives each of its members.
local function look_at(id, when)
  local at = deadline()
  if at and at > NOW then when = math.min(when, at) end
  redis.call('ZADD', OPEN, when, id)
  local _, job_ms = lifetimes()
  if redis.call('PTTL', OPEN) < job_ms then redis.call('PEXPIRE', OPEN, job_ms) end
end

-- Return the key of the data that a retry of a failed stream needs. It is a hash in the same bucket as the record,
-- and lasts as long as the log.
local function kept() return string.gsub(JOB, ':job:', ':kept:', 1) end

-- Delete the data that only a run needs, because the input is a person's prompt. If the stream has failed, it may be
-- tried again: then the data moves to its `kept` hash, without the answers of tools.
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

-- The journal has the changes of a stream that its owner's feed must show. It is in the stream's own bucket, and is
-- written in the same step as the change. An owner's keys are in another slot: `Projector` copies each entry there,
-- and then deletes it from the journal. An entry has its kind, its time, its number in the stream (`seq`), and the
-- record's present fields. The due index says when to check whether the process that called this script died before
-- it could copy the entry.
local TOLD = { 'owner', 'chain', 'thread', 'status', 'created_ms', 'started_ms', 'ended_ms', 'metadata', 'last_id',
  'finish_reason', 'error', 'usage', 'used', 'lost', 'pieces', 'paid', 'dropped', 'unstored' }
local LEFT_MS, JOURNAL_MS = 5000, 86400000
local function journal_of() return (string.gsub(JOB, ':job:', ':journal:', 1)) end

-- Set when this stream's journal must be checked. The index outlives each of its members.
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

-- Write the first journal entry of a stream. Every script that finds the stream confirmed calls this; only the first
-- call writes.
-- Returns 1 if this call has written the entry, else 0.
local function tell_started(id)
  if redis.call('HEXISTS', JOB, 'told') == 1 then return 0 end
  tell(id, 'started')
  return 1
end

-- Write a journal entry for each `stage` event of these frames. No other line of a frame can look like this, because
-- data is one line of JSON.
local function tell_stages(id, frames)
  local from = 1
  while true do
    local _, at = string.find(frames, '\nevent: stage\ndata: ', from, true)
    if not at then return end
    from = string.find(frames, '\n', at + 1, true)
    tell(id, 'stage', 'stage', string.sub(frames, at + 1, from - 1))
  end
end

-- Return the key of the webhook for this event, the set of webhooks to send, and the set of webhooks that were given
-- up.
local function webhook(id, event)
  local tag = string.sub(JOB, 1, string.find(JOB, '}', 1, true))
  return tag .. ':webhook:' .. id .. '_' .. event, tag .. ':outbox', tag .. ':undelivered'
end

-- Put a webhook for this event into the bucket's outbox, if the stream has one. This is the same step as the event.
-- The webhook is due at once, or webhook_unseen_ms later if that is set. The first sender makes the body from the
-- log. For a stream that is not to be stored, the body is made here from the record's fields. The outbox outlives each of its members.
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

-- A stream that is not to be stored has ended, and its owner has been told. Some seconds later nothing of the stream is
-- left: the log, the record and the idempotency key expire by themselves (`keep`). The data in other slots is deleted with
-- a journal entry that is not handled before that time. `resumed`: another stream continues from its checkpoints.
local function forget_unstored(id, resumed)
  local job = redis.call('HMGET', JOB, 'unstored', 'first')
  if not job[1] then return end
  redis.call('HSET', JOB, 'erase_ms', NOW + UNSTORED_MS)
  tell(id, 'erase', 'due_ms', NOW + UNSTORED_MS, 'first', job[2] or id, 'resumed', resumed and 1 or 0)
  keep()
end

-- End the stream; the tombstone stays. A stream that waits for an answer keeps the data that the run with the answer
-- needs.
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

-- Append the frames and publish them in one step, and set fields of the job. A block names the event before it, so a
-- reader knows whether the block follows. It has the time, so that a relay knows the delay. If the Redis user may not
-- publish here (ACL), everything is still written; a plain call would end the script between the frames and the rest.
-- Readers then find the events in the log.
local function publish(id, before, last, status, frames, ...)
  redis.call('APPEND', LOG, frames)
  redis.call('HSET', JOB, 'last_id', last, ...)
  redis.pcall('PUBLISH', 'live:' .. id, before .. ' ' .. last .. ' ' .. status .. ' ' .. NOW .. '\n' .. frames)
end
