-- sweep_deliveries(limit, keep in ms, most lost) -> {leases that ran out, 1 if there is work or 0}
--
-- Whoever held them may have delivered: it is tried again at once, and that try counts once. One
-- whose tries kill their workers is given up.
local limit, keep, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local time = now()
local expired = redis.call('ZRANGEBYSCORE', 'exporter:delivery_leases', '-inf', int(time),
  'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  local fields = redis.call('HMGET', delivery(id), 'endpoint', 'superseded')
  if not fields[1] then
    redis.call('ZREM', 'exporter:delivery_leases', id)
  else
    let_go(id, fields[1])
    redis.call('HDEL', delivery(id), 'fence')
    count('delivery_leases_expired')
    if fields[2] then
      forget_delivery(id)
    elseif redis.call('HINCRBY', delivery(id), 'lost', 1) >= most then
      finish_delivery(id, 'dead', time, keep, 'each worker that tried it was lost')
    else
      line_up_delivery(id, time)
    end
  end
end
local work = redis.call('EXISTS', 'exporter:outbox')
for _, lane in ipairs({FAST, SLOW}) do
  if redis.call('ZRANGEBYSCORE', lane, '-inf', int(time), 'LIMIT', 0, 1)[1] then
    work = 1
  end
end
return {#expired, work}
