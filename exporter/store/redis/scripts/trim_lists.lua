-- trim_lists(users, again in microseconds) -> {entries removed, users examined}
--
-- Removes entries of expired records from the lists of up to `users` users, the longest waiting
-- user first. Without this, the list of a user who neither creates nor lists exports would never
-- shrink. The oldest MAX_ENTRIES entries of a list are examined; if all of them had expired, the
-- list is examined again in the next call, otherwise after `again`.
local users, again = ARGV[1], tonumber(ARGV[2])
local MAX_ENTRIES = 500
-- Exports of a version without indexes that one call indexes.
local left = 50

local time = now()
local removed = 0
local due = redis.call('ZRANGEBYSCORE', PREFIX .. 'users', '-inf', int(time), 'LIMIT', 0, users)
for _, user in ipairs(due) do
  local list = list_of(user)
  local gone = 0
  for _, id in ipairs(redis.call('ZRANGE', list, 0, MAX_ENTRIES - 1)) do
    if redis.call('EXISTS', record(id)) == 0 then
      remove_from_lists(id, user)
      gone = gone + 1
    elseif left > 0 then
      local ok, is_new = pcall(index_old, id, user)
      left = left - (ok and is_new and 1 or 0)
    end
  end
  removed = removed + gone
  if redis.call('EXISTS', list) == 0 then
    redis.call('ZREM', PREFIX .. 'users', user)
  elseif gone < MAX_ENTRIES and left > 0 then
    redis.call('ZADD', PREFIX .. 'users', int(time + again), user)
  end
end
return {removed, #due}
