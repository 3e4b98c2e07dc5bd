-- sweep(limit) -> {expired, due, ready}
local limit = tonumber(ARGV[1])
local REWAKES = 16

local time = now()
local expired = redis.call('ZRANGEBYSCORE', 'exporter:leases', '-inf', int(time), 'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  drop_lease(id)
  if redis.call('HGET', record(id), 'state') == 'processing' then
    redis.call('HDEL', record(id), 'fence')
    redis.call('HINCRBY', record(id), 'attempts', 1)
    make_ready(id, time)
  end
end
local due = end_waits(time, limit)

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
return {#expired, due, tonumber(redis.call('GET', 'exporter:ready') or 0)}
