-- queue_position(id) -> the number of ready exports that are claimed before this one, as things
--   stand; nil if the export is not ready, or if MAX_USERS users or more may be served before it
--
-- All exports of higher levels come first, then those that start-time fair queueing puts first. The
-- limits of users and keys, which only a claim reads, are left out.
local id = ARGV[1]
local MAX_USERS = 300

local fields = redis.call('HMGET', record(id), 'level', 'user', 'deleted')
local level, user = fields[1], fields[2]
if not level or not user or fields[3] then
  return false
end
local since = redis.call('ZSCORE', ready(level, user), id)
local start = redis.call('ZSCORE', tenants(level), user)
if not since or not start then
  return false
end
local rank = redis.call('ZCOUNT', ready(level, user), '-inf', '(' .. since)
local behind = virtual(level)
local turn = math.max(tonumber(start), behind) + rank
local others = redis.call('ZRANGEBYSCORE', tenants(level), '-inf', int(turn), 'WITHSCORES', 'LIMIT', 0,
  MAX_USERS)
if #others >= 2 * MAX_USERS then
  return false
end
local ahead = rank
for place = 1, #others, 2 do
  local other = others[place]
  if other ~= user then
    local turns = turn - math.max(tonumber(others[place + 1]), behind)
    if other < user then
      turns = turns + 1
    end
    ahead = ahead + math.min(redis.call('ZCARD', ready(level, other)), math.max(turns, 0))
  end
end
for higher = level + 1, 9 do
  ahead = ahead + tonumber(redis.call('HGET', PREFIX .. 'lined', higher) or 0)
end
return ahead
