-- Prolong a shard's lease, also one that expired untouched.
--
-- KEYS: the lease (acquire_lease.lua). ARGV: owner; epoch; time to live in ms.
-- Returns 1, or 0 when it is not this owner's at this epoch.

local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + tonumber(ARGV[3])))
return 1
