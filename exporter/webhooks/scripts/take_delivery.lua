-- take_delivery(endpoint, user, nonce, lease, keep in ms)
--   -> {id, all fields of the delivery, all fields of the endpoint, time}; {} if nothing is due;
--      {'missing'} if the user has no such listener
--
-- Claims the due delivery of a listener, whose time starts again. Idempotent like claim_delivery:
-- a second call with the same nonce returns the same delivery while its lease is held.
local endpoint_id, user, nonce = ARGV[1], ARGV[2], ARGV[3]
local lease, keep = tonumber(ARGV[4]), tonumber(ARGV[5])
local MAX_CHECKED = 100
-- Time of a listener that must be used up before it is renewed, so that few takes write to disk.
local RENEWED_MICROS = 5000000

local time = now()
local function answer(id)
  return {id, redis.call('HGETALL', delivery(id)), redis.call('HGETALL', endpoint(endpoint_id)),
    int(time)}
end

drop_expired_listener(time)
local known = redis.call('HMGET', endpoint(endpoint_id), 'user', 'listener', 'disabled_at',
  'rest_until')
if known[1] ~= user or not known[2] then
  return {'missing'}
end
local expires = time + number(known[2]) * 1000000
if expires - number(redis.call('ZSCORE', LISTENING, endpoint_id)) > RENEWED_MICROS then
  redis.call('ZADD', LISTENING, int(expires), endpoint_id)
end

local answered = redis.call('GET', PREFIX .. 'claim:' .. nonce)
if answered then
  local fields = redis.call('HMGET', delivery(answered), 'state', 'fence')
  return (fields[1] == 'delivering' and fields[2] == nonce) and answer(answered) or {}
end

for _ = 1, MAX_CHECKED do
  local first = redis.call('ZRANGE', due(endpoint_id), 0, 0, 'WITHSCORES')
  local id = first[1]
  if not id or math.max(tonumber(first[2]), number(known[4])) > time then
    return {}
  end
  local fields = contain_delivery(id, time, keep, function()
    return redis.call('HMGET', delivery(id), 'state', 'type')
  end) or {}
  if fields[1] ~= 'pending' then
    remove_stray(endpoint_id, user, id, fields[1], time, keep)
  elseif known[3] and fields[2] ~= 'webhook.test' then
    finish_delivery(id, 'dead', time, keep, 'the endpoint is disabled')
  else
    begin_attempt(id, endpoint_id, nonce, time + lease)
    return answer(id)
  end
end
return {}
