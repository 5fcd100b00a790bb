-- This text is put before every script of a thread's checkpoints. All keys of a thread have one slot, and expire
-- together.
-- Keys, in all these scripts: 1 saved (hash), 2 names (sorted set), 3 order (sorted set). If a script has a fourth
-- key, the script explains it.
--   saved  h<id> a checkpoint's head: its parent, its run and the values that it needs
--          c<id> the checkpoint, m<id> its metadata, w<id>/<task>/<index> a task's write
--          v<value> a channel's value in one version, u<value> how many checkpoints need this value
--          a<run> the newest attempt at a run that has stored something, if that is not the first attempt
--          #bytes the sum of all sizes, #seq the number of the newest put, #delta see `room`
--   names  all scores are 0: c<id>, w<id>/<task>/<index>, r/<run><id>, for ranges by name
--   order  <id> by the number of its put
-- <id> is /<namespace>/<checkpoint>, <value> is /<namespace>/<channel>/<version>. Each part is percent-encoded, so it
-- contains no slash and no space.
local SAVED, NAMES, ORDER = KEYS[1], KEYS[2], KEYS[3]
local EACH = 128 -- estimated bytes that a field or a member takes in addition to its text
local NEWEST = 8 -- this many newest puts are never dropped to make room
local MOST_DROPPED = 256 -- most checkpoints that one call drops
local grown = 0 -- bytes that this call has added

local function set(field, value)
  local before = redis.call('HSTRLEN', SAVED, field)
  local new = redis.call('HSET', SAVED, field, value)
  grown = grown + #value - before + new * (#field + EACH)
end

local function unset(field)
  local before = redis.call('HSTRLEN', SAVED, field)
  grown = grown - before - redis.call('HDEL', SAVED, field) * (#field + EACH)
end

local function name(member) grown = grown + redis.call('ZADD', NAMES, 0, member) * (#member + EACH) end
local function unname(member) grown = grown - redis.call('ZREM', NAMES, member) * (#member + EACH) end
local function number_of(field) return tonumber(redis.call('HGET', SAVED, field) or 0) end

-- Note that one checkpoint more (1) or less (-1) needs this value. A value that no checkpoint needs is dropped.
local function need(value, step)
  local users = redis.call('HINCRBY', SAVED, 'u' .. value, step)
  if users == 1 and step == 1 then grown = grown + #value + EACH end
  if users <= 0 then
    grown = grown - redis.call('HDEL', SAVED, 'u' .. value) * (#value + EACH)
    unset('v' .. value)
  end
end

local function needs_of(head) return string.gmatch(head, ' (/[^ ]*)') end
local function run_of(head) return string.match(head, '^[^ ]* :([^ ]*)') end

local function drop(id)
  local head = redis.call('HGET', SAVED, 'h' .. id)
  if not head then return 0 end
  for value in needs_of(head) do need(value, -1) end
  for _, write in ipairs(redis.call('ZRANGEBYLEX', NAMES, '[w' .. id .. '/', '(w' .. id .. '0')) do
    unset(write)
    unname(write)
  end
  unset('h' .. id)
  unset('c' .. id)
  unset('m' .. id)
  unname('c' .. id)
  unname('r/' .. run_of(head) .. id)
  redis.call('ZREM', ORDER, id)
  return 1
end

-- Return the id of a namespace's newest checkpoint, by its name, or nothing. '0' is the character after '/'.
local function newest_of(namespace)
  local first, last = '[c/' .. namespace .. '/', '(c/' .. namespace .. '0'
  local found = redis.call('ZREVRANGEBYLEX', NAMES, last, first, 'LIMIT', 0, 1)[1]
  return found and string.sub(found, 2)
end

-- Whether resuming may need this checkpoint. The newest checkpoint of a namespace is needed. If the namespace names a
-- task (`node:task`, the colon encoded), its newest checkpoint is needed only if it was put after the root's newest
-- checkpoint, which has that task.
local function is_needed(id, seq, since)
  local namespace = string.match(id, '^/([^/]*)/')
  if newest_of(namespace) ~= id then return false end
  return seq >= since or not string.find(namespace, '%%3A')
end

-- Make room for `needed` bytes: drop the oldest puts, except checkpoints that are needed, `spared`, and the newest
-- puts. Returns 'ok', 'full', or 'more' if the caller must call again. The state of a delta channel consists of all
-- writes since its snapshot, so a thread with such channels drops nothing.
local function room(needed, most, spared)
  local function fits() return number_of('#bytes') + grown + needed <= most end
  if fits() then return 'ok' end
  if redis.call('HEXISTS', SAVED, '#delta') == 1 then return 'full' end
  local seq = number_of('#seq')
  local last, root, dropped = seq - NEWEST, newest_of(''), 0
  local since = root and tonumber(redis.call('ZSCORE', ORDER, root)) - NEWEST or 0
  while not fits() do
    local first = redis.call('ZRANGE', ORDER, 0, 0, 'WITHSCORES')
    if not first[1] or tonumber(first[2]) > last then return 'full' end
    if dropped == MOST_DROPPED then return 'more' end
    if first[1] == spared or is_needed(first[1], tonumber(first[2]), since) then
      seq = redis.call('HINCRBY', SAVED, '#seq', 1) -- it is checked again after all other checkpoints
      redis.call('ZADD', ORDER, seq, first[1])
    else
      dropped = dropped + drop(first[1])
    end
  end
  return 'ok'
end

-- Whether a run of the gateway may still write here. The fourth key is the thread (hash): one run has the thread's
-- turn, and a run that is leaving may not write. Without that key, every run may write.
local function may_write(run)
  if not KEYS[4] then return true end
  local thread = redis.call('HMGET', KEYS[4], 'holder', 'leaving')
  local leaving = ' ' .. (thread[2] or '')
  return thread[1] == run and not string.find(leaving, ' ' .. run .. ' ', 1, true)
    and not string.find(leaving, ' ' .. run .. '! ', 1, true)
end

-- Whether a newer attempt at this run has written to the thread. Then an older attempt, which was paused, changes
-- nothing any more.
-- `attempt` is 0 for a caller that has no attempts.
local function is_fenced(run, attempt)
  return tonumber(attempt) < number_of('a' .. run)
end

local function settle()
  if grown ~= 0 then redis.call('HINCRBY', SAVED, '#bytes', grown) end
  grown = 0
end

local function keep(ms)
  settle()
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ms) end
end
