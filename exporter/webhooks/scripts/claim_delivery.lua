-- claim_delivery(nonce, lease, keep in ms, slow '1' or '0')
--   -> {id, all fields of the delivery, all fields of the endpoint, time}, or {when one is due}, or {}
--
-- The nonce is new for each claim that is meant: a second call with it gets the same answer. With
-- slow '0' only endpoints that were quick lately are served.
local nonce, lease, keep, slow = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local CLEARED = 100

local time = now()
local function answer(id)
  local address = redis.call('HGET', delivery(id), 'endpoint')
  return {id, redis.call('HGETALL', delivery(id)), redis.call('HGETALL', endpoint(address)),
    int(time)}
end

local answered = redis.call('GET', 'exporter:claim:' .. nonce)
if answered then
  local fields = redis.call('HMGET', delivery(answered), 'state', 'fence')
  return (fields[1] == 'delivering' and fields[2] == nonce) and answer(answered) or {}
end

-- The endpoint that waits longest, and since when.
local function next_endpoint()
  local first = redis.call('ZRANGE', FAST, 0, 0, 'WITHSCORES')
  if slow == '1' then
    local other = redis.call('ZRANGE', SLOW, 0, 0, 'WITHSCORES')
    if other[1] and (not first[1] or tonumber(other[2]) < tonumber(first[2])) then
      first = other
    end
  end
  return first[1], tonumber(first[2])
end

for _ = 1, CLEARED do
  local address, since = next_endpoint()
  if not address then
    return {}
  end
  if since > time then
    return {int(since)}
  end
  local id = redis.call('ZRANGE', due(address), 0, 0)[1]
  local fields = id and redis.call('HMGET', delivery(id), 'state', 'type') or {}
  local known = redis.call('HMGET', endpoint(address), 'user', 'disabled_at')
  if fields[1] ~= 'pending' then
    -- Somebody deleted it by hand.
    redis.call('ZREM', due(address), id or '')
    schedule_endpoint(address)
  elseif not known[1] then
    finish_delivery(id, 'dead', time, keep, 'the endpoint is deleted')
  elseif known[2] and fields[2] ~= 'webhook.test' then
    finish_delivery(id, 'dead', time, keep, 'the endpoint is disabled')
  else
    redis.call('ZREM', due(address), id)
    redis.call('HDEL', delivery(id), 'next_at')
    redis.call('HSET', delivery(id), 'state', 'delivering', 'fence', nonce)
    redis.call('ZADD', 'exporter:delivery_leases', int(time + lease), id)
    redis.call('HINCRBY', 'exporter:delivering', address, 1)
    redis.call('HSET', endpoint(address), 'served_at', int(time))
    schedule_endpoint(address)
    redis.call('SET', 'exporter:claim:' .. nonce, id, 'EX', 60)
    return answer(id)
  end
end
return {int(time)}
