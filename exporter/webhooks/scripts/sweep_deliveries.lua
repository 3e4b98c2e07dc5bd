-- sweep_deliveries(limit, keep in ms, most) -> {number of expired leases, 1 if there is work or 0}
--
-- Makes deliveries with an expired lease due now. The lost attempt may have reached the receiver
-- (at-least-once delivery); it is not counted in `tries`. After `most` lost attempts in a row the
-- delivery is dead, because its attempts may be the cause of the loss. Events that were set aside
-- return to the outbox at the end of their wait. Listeners whose time is over are deleted.
local limit, keep, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local time = now()
drop_expired_listener(time)
local expired = redis.call('ZRANGEBYSCORE', PREFIX .. 'delivery_leases', '-inf', int(time),
  'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  contain_delivery(id, time, keep, function()
    local fields = redis.call('HMGET', delivery(id), 'state', 'superseded')
    release_delivery_lease(id)
    if not fields[1] and redis.call('EXISTS', delivery(id)) == 0 then
      return
    end
    redis.call('HDEL', delivery(id), 'fence')
    count('delivery_leases_expired')
    if fields[2] then
      forget_delivery(id)
    elseif redis.call('HINCRBY', delivery(id), 'lost', 1) >= most then
      finish_delivery(id, 'dead', time, keep,
        'the worker was lost in ' .. most .. ' attempts in a row')
    else
      make_delivery_pending(id, time)
    end
  end)
end
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', PREFIX .. 'outbox_aside', '-inf', int(time),
  'LIMIT', 0, limit)) do
  redis.call('ZREM', PREFIX .. 'outbox_aside', entry)
  redis.call('RPUSH', PREFIX .. 'outbox', entry)
end
local work = redis.call('EXISTS', PREFIX .. 'outbox')
for _, speed in ipairs(SPEEDS) do
  for _, key in ipairs({turns(speed), PREFIX .. 'lane:' .. speed}) do
    if redis.call('ZRANGEBYSCORE', key, '-inf', int(time), 'LIMIT', 0, 1)[1] then
      work = 1
    end
  end
end
return {#expired, work}
