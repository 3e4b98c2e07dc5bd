-- trim_lists(users, again in microseconds) -> {entries removed, users looked at}
--
-- Looks through the lists of that many users, whoever waits longest, for exports whose records have
-- expired: those of a user who neither creates nor lists would stay for ever. The oldest entries are
-- looked at; what lies beyond comes when those are gone.
local users, again = ARGV[1], tonumber(ARGV[2])
local OLDEST = 500

local time = now()
local removed = 0
local due = redis.call('ZRANGEBYSCORE', 'exporter:users', '-inf', int(time), 'LIMIT', 0, users)
for _, user in ipairs(due) do
  local index = 'exporter:user:' .. user
  local gone = 0
  for _, id in ipairs(redis.call('ZRANGE', index, 0, OLDEST - 1)) do
    if redis.call('EXISTS', record(id)) == 0 then
      redis.call('ZREM', index, id)
      gone = gone + 1
    end
  end
  removed = removed + gone
  if redis.call('EXISTS', index) == 0 then
    redis.call('ZREM', 'exporter:users', user)
  elseif gone < OLDEST then
    redis.call('ZADD', 'exporter:users', int(time + again), user)
  end
end
return {removed, #due}
