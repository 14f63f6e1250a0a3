-- Read the cluster's record, or add to it what is missing.
--
-- KEYS: the record, a hash. ARGV: fields and values to add where there are none.
-- Returns the record's fields and values, none if it is missing.

for i = 1, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
return redis.call('HGETALL', KEYS[1])
