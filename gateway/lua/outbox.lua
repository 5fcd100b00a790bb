-- This text is put before the scripts of the outbox. The time is Redis's own.
-- Keys, in all these scripts: 1 entry (hash), 2 outbox (sorted set: names by the time when they are due), 3
-- undelivered (sorted set: names by the time when they were given up), 4 job (hash), 5 log (string). All are in one
-- bucket, so in one slot. The first argument is the name: the stream's id and the event.
local ENTRY, OUTBOX, UNDELIVERED, JOB, LOG = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local NAME = ARGV[1]
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- Make the webhook due in `ms` milliseconds. `wait_ms` shows whether the clock was set back: a webhook that is due
-- later than its whole wait from now is due at once.
local function due_in(ms)
  redis.call('HSET', ENTRY, 'due_ms', NOW + ms, 'wait_ms', ms)
  redis.call('ZADD', OUTBOX, NOW + ms, NAME)
end

-- Make the entry last for at least `ms` from now on, and also the sets that name it and the stream's record.
-- The record of a stream that is not to be stored does not last longer.
local function last(ms)
  for _, key in ipairs({ ENTRY, OUTBOX, UNDELIVERED, JOB }) do
    local left = redis.call('PTTL', key)
    local is_kept = key ~= JOB or redis.call('HEXISTS', JOB, 'erase_ms') == 0
    if is_kept and left ~= -2 and left < ms then redis.call('PEXPIRE', key, ms) end
  end
end

-- Remove the webhook with this name: its entry, and its name in both sets.
local function forget()
  redis.call('DEL', ENTRY)
  redis.call('ZREM', OUTBOX, NAME)
  redis.call('ZREM', UNDELIVERED, NAME)
end
