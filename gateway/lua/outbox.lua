-- Stands before the scripts of the outbox. Time is Redis's own.
-- Keys, in all of them: 1 entry (hash), 2 outbox (sorted set: names by when they are due), 3 undelivered (likewise, by
-- when they were given up), 4 job (hash), 5 log (string); all of one bucket, so of one slot. The first argument is the
-- name, which is the stream's id and the event.
local ENTRY, OUTBOX, UNDELIVERED, JOB, LOG = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local NAME = ARGV[1]
local time = redis.call('TIME')
local NOW = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- The webhook is due in so many milliseconds. `wait_ms` shows a clock that has gone back: what is due later than it was
-- ever to wait is due now.
local function due_in(ms)
  redis.call('HSET', ENTRY, 'due_ms', NOW + ms, 'wait_ms', ms)
  redis.call('ZADD', OUTBOX, NOW + ms, NAME)
end

-- The entry lasts for at least so long from now on, and with it the sets that name it, and the stream's record, unless
-- that is not to be stored.
local function last(ms)
  for _, key in ipairs({ ENTRY, OUTBOX, UNDELIVERED, JOB }) do
    local left = redis.call('PTTL', key)
    local is_kept = key ~= JOB or redis.call('HEXISTS', JOB, 'erase_ms') == 0
    if is_kept and left ~= -2 and left < ms then redis.call('PEXPIRE', key, ms) end
  end
end

-- There is no webhook of this name, or no more: the sets do not name it either.
local function forget()
  redis.call('DEL', ENTRY)
  redis.call('ZREM', OUTBOX, NAME)
  redis.call('ZREM', UNDELIVERED, NAME)
end
