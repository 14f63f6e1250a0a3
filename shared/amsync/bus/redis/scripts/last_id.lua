-- The last id that a stream has given out, trimmed or not; nil if there is no stream.
--
-- KEYS: the stream. (XINFO itself would send the first and the last entry along.)

if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then return info[i + 1] end
end
return false
