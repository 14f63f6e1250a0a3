-- Empty a stream, and let it end.
--
-- KEYS: the stream; its size key (append.lua).
-- ARGV: how long the empty stream stays, ms: positions grow on if it is used again by then.

if redis.call('EXISTS', KEYS[1]) == 0 then return redis.call('DEL', KEYS[2]) end
redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', 0)
redis.call('HSET', KEYS[2], 'trimmed', redis.call('HGET', KEYS[2], 'added') or 0, 'ends', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
