-- claim_delivery(nonce, lease, keep in ms, slow '1' or '0')
--   -> {id, all fields of the delivery, all fields of the endpoint, time},
--      or {time at which the next delivery is due}, or {} if no endpoint is scheduled
--
-- Idempotent: the caller generates a nonce for each claim, and a second call with the same nonce
-- returns the same delivery while its lease is held. With slow '0', endpoints whose previous
-- attempt failed or was slow are skipped. Stops after MAX_CHECKED deliveries that cannot be claimed.
local nonce, lease, keep, slow = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local MAX_CHECKED = 100

local time = now()
local function answer(id)
  local endpoint_id = redis.call('HGET', delivery(id), 'endpoint')
  return {id, redis.call('HGETALL', delivery(id)), redis.call('HGETALL', endpoint(endpoint_id)),
    int(time)}
end

local answered = redis.call('GET', 'exporter:claim:' .. nonce)
if answered then
  local fields = redis.call('HMGET', delivery(answered), 'state', 'fence')
  return (fields[1] == 'delivering' and fields[2] == nonce) and answer(answered) or {}
end

-- Returns the endpoint that has waited longest, and the time since which it can be served.
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

for _ = 1, MAX_CHECKED do
  local endpoint_id, since = next_endpoint()
  if not endpoint_id then
    return {}
  end
  if since > time then
    return {int(since)}
  end
  local id = redis.call('ZRANGE', due(endpoint_id), 0, 0)[1]
  local fields = id and redis.call('HMGET', delivery(id), 'state', 'type') or {}
  local known = redis.call('HMGET', endpoint(endpoint_id), 'user', 'disabled_at')
  if fields[1] ~= 'pending' then
    -- The delivery was deleted or changed outside of these scripts: remove the entry.
    redis.call('ZREM', due(endpoint_id), id or '')
    schedule_endpoint(endpoint_id)
  elseif not known[1] then
    finish_delivery(id, 'dead', time, keep, 'the endpoint is deleted')
  elseif known[2] and fields[2] ~= 'webhook.test' then
    finish_delivery(id, 'dead', time, keep, 'the endpoint is disabled')
  else
    redis.call('ZREM', due(endpoint_id), id)
    redis.call('HDEL', delivery(id), 'next_at')
    redis.call('HSET', delivery(id), 'state', 'delivering', 'fence', nonce)
    redis.call('ZADD', 'exporter:delivery_leases', int(time + lease), id)
    redis.call('HINCRBY', 'exporter:delivering', endpoint_id, 1)
    redis.call('HSET', endpoint(endpoint_id), 'served_at', int(time))
    schedule_endpoint(endpoint_id)
    redis.call('SET', 'exporter:claim:' .. nonce, id, 'EX', 60)
    return answer(id)
  end
end
return {int(time)}
