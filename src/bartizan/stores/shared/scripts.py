"""What runs inside Valkey, in Lua: each script is one indivisible step. See ``stores/shared/allowance.py``.

Numbers are doubles, exact up to 2^53: microseconds since the epoch fit until the year 2255. A moment is written with
``%.0f`` since Lua's own way of writing loses digits.
"""

from __future__ import annotations

DRAW = """
local born, key = KEYS[1], KEYS[2]
if redis.call('GET', born) ~= ARGV[1] then return {-2, 0, 0, 0, 0, 0} end
local units, least, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local window, burst, force = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local ceiling, longest = tonumber(ARGV[8]), tonumber(ARGV[9])
local SLOTS, SHARE, NEVER = 32, 8, -1
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ceiling > 0 and now > ceiling then now = ceiling end
local function written(number) return string.format('%.0f', number) end
local function grant(left)
  if force == 1 then return units end
  if left < least or left <= 0 then return 0 end
  return math.min(units, math.max(least, math.floor(left / SHARE)))
end
local expiry = 2 * window
local answer
if burst > 0 then
  local kept = redis.call('HMGET', key, 'last', 'full')
  now = math.max(now, tonumber(kept[1] or 0))
  local each = window / limit
  local full = math.max(tonumber(kept[2] or 0), now)
  local left = math.floor(burst - (full - now) / each)
  local granted = grant(left)
  if granted > 0 then
    full = full + granted * each
    redis.call('HSET', key, 'last', written(now), 'full', string.format('%.17g', full),
      'each', string.format('%.17g', each))
    expiry = expiry + full - now
  end
  local need = 1
  if units > 0 and granted == 0 then need = least end
  local resets = math.max(math.floor(full - (burst - need) * each) + 1, now)
  if need > burst then resets = NEVER end
  local life = math.min(math.floor(window / SLOTS), 1000000)
  answer = {granted, written(now + life), written(resets), left - granted, 0, written(now)}
else
  local kept = redis.call('HGETALL', key)
  local slots, order, stale = {}, {}, {}
  for place = 1, #kept, 2 do
    if kept[place] == 'last' then
      now = math.max(now, tonumber(kept[place + 1]))
    else
      slots[tonumber(kept[place])] = tonumber(kept[place + 1])
    end
  end
  local width = math.ceil(window / SLOTS)
  local slot = math.floor(now / width)
  local left = limit
  for number, spent in pairs(slots) do
    if number < slot - SLOTS or spent == 0 then
      stale[#stale + 1] = written(number)
    else
      left = left - spent
      order[#order + 1] = number
    end
  end
  local granted = grant(left)
  if granted > 0 then
    if #stale > 0 then redis.call('HDEL', key, unpack(stale)) end
    redis.call('HINCRBY', key, written(slot), granted)
    redis.call('HSET', key, 'last', written(now))
  end
  table.sort(order)
  local resets = NEVER
  if granted > 0 or units == 0 then
    resets = now
    if #order > 0 then
      resets = (order[1] + SLOTS + 1) * width
    elseif granted > 0 then
      resets = (slot + SLOTS + 1) * width
    end
  else
    local free = left
    for _, number in ipairs(order) do
      free = free + slots[number]
      if free >= least then
        resets = (number + SLOTS + 1) * width
        break
      end
    end
  end
  local till = math.min((slot + 1) * width, now + longest)
  answer = {granted, written(till), written(resets), left - granted, written(slot + 1), written(now)}
end
if answer[1] > 0 then redis.call('PEXPIRE', key, written(math.ceil(expiry / 1000) + 3600000)) end
return answer
"""
"""Keys: proof that nothing was lost; the allowance. Answer: granted, until, resets, left, mark, now."""

GIVE_BACK = """
local mark, unspent = tonumber(ARGV[1]), tonumber(ARGV[2])
if mark > 0 then
  local slot = string.format('%.0f', mark - 1)
  local spent = tonumber(redis.call('HGET', KEYS[1], slot) or 0)
  if spent > 0 then redis.call('HINCRBY', KEYS[1], slot, -math.min(spent, unspent)) end
else
  local kept = redis.call('HMGET', KEYS[1], 'full', 'each')
  if kept[1] then
    redis.call('HSET', KEYS[1], 'full', string.format('%.17g', tonumber(kept[1]) - unspent * tonumber(kept[2])))
  end
end
return 1
"""
"""Key: the allowance. Arguments: mark of the lease, units."""

COUNT = """
local total = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return total
"""
"""Key: the counter. Arguments: what is added, milliseconds that it lasts."""

__all__ = ["COUNT", "DRAW", "GIVE_BACK"]
