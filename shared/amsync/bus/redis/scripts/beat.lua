-- Say that we live, and learn who else does.
--
-- KEYS: the members, a hash of `kind:incarnation` -> `<ms of its last beat> <info>`; the
--   cluster's record.
-- ARGV: our own field, empty for somebody who only looks; our info; the age in ms from which a member is forgotten.
-- Returns 1 if we were known, else 0; the cluster epoch or ''; then field, age in ms and info of
--   every other member.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%.0f ', now)
local found = {0, redis.call('HGET', KEYS[2], 'epoch') or ''}
local all = redis.call('HGETALL', KEYS[1])

for i = 1, #all, 2 do
  local field, gap = all[i], string.find(all[i + 1], ' ', 1, true)
  local age, info = now - tonumber(string.sub(all[i + 1], 1, gap)), string.sub(all[i + 1], gap + 1)
  if age > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], field)
  elseif field == ARGV[1] then
    found[1] = 1
  else
    if age < 0 then -- the clock went back: else the dead would live until it has caught up
      age = 0
      redis.call('HSET', KEYS[1], field, stamp .. info)
    end
    found[#found + 1] = field
    found[#found + 1] = age
    found[#found + 1] = info
  end
end
if ARGV[1] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], stamp .. ARGV[2])
end
return found
