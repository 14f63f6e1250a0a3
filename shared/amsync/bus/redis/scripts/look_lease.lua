-- Read a shard's lease.
--
-- KEYS: the lease (acquire_lease.lua).
-- Returns owner, epoch and remaining ms (0 when it has expired); nil when there is none.

local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until')
if not lease[1] then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {lease[1], tonumber(lease[2]), math.max(0, tonumber(lease[3]) - now)}
