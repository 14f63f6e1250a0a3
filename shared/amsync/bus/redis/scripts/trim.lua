-- Forget the entries of a stream up to and including one id.
--
-- KEYS: the stream; its size key (append.lua); optionally the lease to hold.
-- ARGV: the first id to keep; the last id to forget; with a lease: owner, epoch.
-- Returns 1, or 0 when the lease is not held.

if KEYS[3] then
  local lease = redis.call('HMGET', KEYS[3], 'owner', 'epoch', 'until')
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if lease[1] ~= ARGV[3] or lease[2] ~= ARGV[4] or tonumber(lease[3]) <= now then return 0 end
end

if redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[1]) > 0 then
  local first = redis.call('XRANGE', KEYS[1], '(' .. ARGV[2], '+', 'COUNT', 1)[1]
  if first then
    local before = tonumber(first[2][4]) - #first[2][2]
    redis.call('HSET', KEYS[2], 'trimmed', string.format('%.0f', before))
  else
    redis.call('HSET', KEYS[2], 'trimmed', redis.call('HGET', KEYS[2], 'added') or 0)
  end
end
return 1
