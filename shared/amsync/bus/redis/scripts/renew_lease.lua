-- Prolong leases of one owner, also those that expired untouched.
--
-- KEYS: the leases (acquire_lease.lua). ARGV: owner; time to live in ms; epoch of each lease.
-- Returns for each 1, or 0 when it is not this owner's at this epoch.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = string.format('%.0f', now + tonumber(ARGV[2]))
local kept = {}
for i, key in ipairs(KEYS) do
  local lease = redis.call('HMGET', key, 'owner', 'epoch')
  if lease[1] == ARGV[1] and lease[2] == ARGV[2 + i] then
    redis.call('HSET', key, 'until', ends)
    kept[i] = 1
  else
    kept[i] = 0
  end
end
return kept
