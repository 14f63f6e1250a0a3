-- Give a shard's lease up; its epoch stays.
--
-- KEYS: the lease (acquire_lease.lua). ARGV: owner; epoch.
-- Returns 1, or 0 when it is not this owner's at this epoch.

local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'owner', '', 'until', '0')
return 1
