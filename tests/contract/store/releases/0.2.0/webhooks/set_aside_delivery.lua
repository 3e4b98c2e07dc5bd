-- set_aside_delivery(id, nonce, wait, most, keep in ms, reason) -> number of tries, 0 for a stale nonce
--
-- Ends an attempt that a worker could not make, because of the delivery or its endpoint. The next
-- attempt is after `wait` microseconds; after `most` tries in a row the delivery is dead. A second
-- call with the same nonce changes nothing.
local id, nonce, wait, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local keep, reason = tonumber(ARGV[5]), ARGV[6]

local fields = redis.call('HMGET', delivery(id), 'state', 'fence', 'lost')
if fields[1] ~= 'delivering' or fields[2] ~= nonce then
  return 0
end
local time = now()
local tries = number(fields[3]) + 1
contain_delivery(id, time, keep, function()
  release_delivery_lease(id)
  redis.call('HDEL', delivery(id), 'fence')
  count('deliveries_set_aside')
  if tries >= most then
    finish_delivery(id, 'dead', time, keep, reason)
  else
    redis.call('HSET', delivery(id), 'lost', int(tries))
    make_delivery_pending(id, time + wait)
  end
end)
return tries
