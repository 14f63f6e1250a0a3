-- Take a shard's lease, renew it, or say who has it.
--
-- KEYS: the lease, a hash of `owner` ('' when released), `epoch`, `until` (ms).
-- ARGV: owner; the highest epoch known of the shard; time to live in ms.
-- Returns the lease's owner, epoch and remaining ms.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until')
local owner, epoch, ends = lease[1] or '', tonumber(lease[2]) or 0, tonumber(lease[3]) or 0
local min_epoch, life = tonumber(ARGV[2]), tonumber(ARGV[3])

if owner ~= ARGV[1] and owner ~= '' and ends > now then
  if ends > now + life then -- the clock went back: else nobody could follow a dead owner
    ends = now + life
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', ends))
  end
  return {owner, epoch, ends - now}
end
if owner ~= ARGV[1] or min_epoch > epoch then
  epoch = math.max(epoch, min_epoch) + 1
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', string.format('%.0f', epoch),
  'until', string.format('%.0f', now + life))
return {ARGV[1], epoch, life}
