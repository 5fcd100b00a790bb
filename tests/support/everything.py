"""Which keys of a Redis hold some words, whatever kind of value they have."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

# In the server, as one step: a store in which thousands of streams were started takes milliseconds to look
# through, where each key's value handed over here would take seconds of processor time.
LOOK = """
local words = ARGV[1]
local read = {
  string = function(key) return redis.call('GET', key) end,
  hash = function(key) return redis.call('HGETALL', key) end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  none = function(key) return '' end,
}
local function has(value)
  if type(value) ~= 'table' then
    return string.find(value, words, 1, true) ~= nil
  end
  for _, part in ipairs(value) do
    if has(part) then return true end
  end
  return false
end
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  if not read[kind] then
    return redis.error_reply(key .. ' is a ' .. kind)
  end
  if has(key) or has(read[kind](key)) then found[#found + 1] = key end
end
return found
"""


async def keys_with(redis: Redis, words: str) -> set[str]:
    """The keys whose names, or whose values, have these words. Raises ResponseError for an unknown kind."""
    held: Any = redis
    return {key.decode() for key in await held.eval(LOOK, 0, words)}
