-- sweep(limit, ageing)
--   -> {leases expired, waits ended, exports raised, exports ready, records set aside}
--
-- `ageing` is in microseconds. Each step handles at most `limit` exports, the oldest first.
-- A record set aside is given by its id and the reason.
local limit, ageing = tonumber(ARGV[1]), tonumber(ARGV[2])
local MAX_REWAKES = 16

local time = now()
local expired = redis.call('ZRANGEBYSCORE', PREFIX .. 'leases', '-inf', int(time),
  'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  drop_lease(id)
  contain(id, time, function()
    if is_live(id) then
      redis.call('HDEL', record(id), 'fence')
      redis.call('HINCRBY', record(id), 'attempts', 1)
      count('leases_expired')
      make_ready(id, time)
    end
  end)
end
local due = end_waits(time, limit)

local old = redis.call('ZRANGEBYSCORE', PREFIX .. 'ageing', '-inf', int(time - ageing),
  'LIMIT', 0, limit)
for _, id in ipairs(old) do
  -- An entry without such a record is of an export that was deleted by hand, or is damaged.
  if not pcall(function()
    local fields = redis.call('HMGET', record(id), 'level', 'user')
    local level, user = tonumber(fields[1]), fields[2]
    check_place(level + 1, user)
    leave_queue(level, user, id)
    redis.call('HSETNX', record(id), 'asked', level)
    redis.call('HSET', record(id), 'level', level + 1)
    enqueue(level + 1, user, id, time)
    count('levels_risen')
  end) then
    redis.call('ZREM', PREFIX .. 'ageing', id)
  end
end

forget_expired(time, limit)

-- A worker of a version without partitions may end a partition or the export itself and leave the
-- other records unchanged. Only this step makes such an export ready or removes its partitions.
local cut = redis.call('ZRANGEBYSCORE', PREFIX .. 'cut', '-inf', int(time), 'LIMIT', 0, limit)
for _, id in ipairs(cut) do
  redis.call('ZREM', PREFIX .. 'cut', id)
  contain(id, time, function()
    if is_live(id) then
      redis.call('ZADD', PREFIX .. 'cut', int(time + CUT_CHECK_MICROS), id)
      make_ready_if_partitions_ended(id, time)
    else
      forget_partitions(id)
    end
  end)
end

-- Makes up to `count` wake-ups, for the exports that a claim would take first. Wake-ups may be
-- lost, so this runs when no wake-up is left.
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

if redis.call('EXISTS', PREFIX .. 'wake') == 0 then
  rewake(MAX_REWAKES)
end
local lined = 0
for _, exports in ipairs(redis.call('HVALS', PREFIX .. 'lined')) do
  lined = lined + exports
end
return {#expired, due, #old, lined, aside}
