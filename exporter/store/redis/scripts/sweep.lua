-- sweep(limit, ageing) -> {expired, due, risen, ready}
--
-- Ageing is in microseconds; each of the three does `limit` exports at most, the oldest first.
local limit, ageing = tonumber(ARGV[1]), tonumber(ARGV[2])
local REWAKES = 16

local time = now()
local expired = redis.call('ZRANGEBYSCORE', 'exporter:leases', '-inf', int(time), 'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  drop_lease(id)
  if redis.call('HGET', record(id), 'state') == 'processing' then
    redis.call('HDEL', record(id), 'fence')
    redis.call('HINCRBY', record(id), 'attempts', 1)
    count('leases_expired')
    make_ready(id, time)
  end
end
local due = end_waits(time, limit)

local old = redis.call('ZRANGEBYSCORE', 'exporter:ageing', '-inf', int(time - ageing),
  'LIMIT', 0, limit)
for _, id in ipairs(old) do
  local fields = redis.call('HMGET', record(id), 'level', 'user')
  local level, user = tonumber(fields[1]), fields[2]
  if level then
    leave_queue(level, user, id)
    redis.call('HSETNX', record(id), 'asked', level)
    redis.call('HSET', record(id), 'level', level + 1)
    enter(level + 1, user, id, time)
    count('levels_risen')
  else
    redis.call('ZREM', 'exporter:ageing', id)
  end
end

-- A worker of a version that knows no partitions may end one, or the export itself, and leave the
-- rest as it is: nobody else would come for that.
local cut = redis.call('ZRANGEBYSCORE', 'exporter:cut', '-inf', int(time), 'LIMIT', 0, limit)
for _, id in ipairs(cut) do
  redis.call('ZREM', 'exporter:cut', id)
  if redis.call('HGET', record(id), 'state') == 'processing' then
    redis.call('ZADD', 'exporter:cut', int(time + LOOK_AFTER), id)
    reunite(id, time)
  else
    forget_partitions(id)
  end
end

-- Wake-ups may be lost, exports may not. None is left while exports are ready: make some, for
-- those that a claim would take first.
local function rewake(count)
  for level = 9, 0, -1 do
    for _, user in ipairs(redis.call('ZRANGE', tenants(level), 0, count - 1)) do
      for _, id in ipairs(redis.call('ZRANGE', ready(level, user), 0, count - 1)) do
        wake(level, id)
        count = count - 1
        if count == 0 then
          return
        end
      end
    end
  end
end

if redis.call('EXISTS', 'exporter:wake') == 0 then
  rewake(REWAKES)
end
local lined = 0
for _, exports in ipairs(redis.call('HVALS', 'exporter:lined')) do
  lined = lined + exports
end
return {#expired, due, #old, lined}
