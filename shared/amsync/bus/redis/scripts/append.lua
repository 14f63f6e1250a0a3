-- Add an entry to a stream unless that is full, and push it to who listens (reader.py).
--
-- KEYS: the stream; its size key, a hash of `added` (bytes ever appended), `trimmed` (how far
--   into those it was trimmed) and `ends` (both keys have a time to live).
-- ARGV: the entry; the most bytes held; time to live in ms, 0 for none; the channel.
-- Returns the entry's id, or nil when the stream is full.
--
-- Each entry carries the value of `added` behind it, so that trimming knows what it has freed.
-- What is pushed is its id, that value, and the entry itself unless it is large: Redis closes a
-- connection that is pushed more than it takes. A push that is refused harms nothing.

local size = redis.call('HMGET', KEYS[2], 'added', 'trimmed', 'ends')
local added, trimmed = tonumber(size[1]), tonumber(size[2]) or 0
local bytes, life = #ARGV[1], tonumber(ARGV[3])

if not added then -- a new stream; or the size key alone was lost
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  added = last and tonumber(last[2][4]) or 0
end
if added + bytes - trimmed > tonumber(ARGV[2]) then
  if redis.call('XLEN', KEYS[1]) > 0 then return false end
  trimmed = added
  redis.call('HSET', KEYS[2], 'trimmed', trimmed)
end

added = added + bytes
local text = string.format('%.0f', added)
local id = redis.call('XADD', KEYS[1], '*', 'd', ARGV[1], 'b', text)
if life > 0 then
  redis.call('HSET', KEYS[2], 'added', text, 'ends', 1)
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('PEXPIRE', KEYS[2], life)
else
  redis.call('HSET', KEYS[2], 'added', text)
  if size[3] then
    redis.call('HDEL', KEYS[2], 'ends')
    redis.call('PERSIST', KEYS[1])
    redis.call('PERSIST', KEYS[2])
  end
end
local pushed = id .. ' ' .. text
if bytes <= 65536 then pushed = pushed .. ' ' .. ARGV[1] end
redis.pcall('PUBLISH', ARGV[4], pushed)
return id
