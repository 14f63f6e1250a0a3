-- Read the cluster's record, or create it where it is missing.
--
-- KEYS: the record, a hash. ARGV: its fields and values, none to read only.
-- Returns the record's fields and values, none if it is missing.

if #ARGV > 0 and redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
return redis.call('HGETALL', KEYS[1])
