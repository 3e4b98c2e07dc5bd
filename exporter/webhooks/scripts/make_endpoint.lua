-- make_endpoint(id, user, own '1' or '0', url, most, keep in ms, name, value, …)
--   -> {'made', id, all fields}, or {'full'} if the user has `most` endpoints of that kind
--
-- own '1' registers an endpoint; own '0' gets or creates the endpoint of a webhook_url. For own '0'
-- an enabled registered endpoint with that URL is preferred. Otherwise the endpoint with that id is
-- used: it is enabled again, unless its owner disabled it, and its TTL restarts. A registered endpoint
-- with the field `listener` is a listener; its time begins now.
local id, user, own, url = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most, keep = tonumber(ARGV[5]), tonumber(ARGV[6])

local MAX_CHECKED = 100

-- Removes expired entries among some of the index, beginning at a rank. Endpoints of a webhook_url
-- have a TTL, their entries in the index do not.
local function remove_expired(index, first, number)
  for _, one in ipairs(redis.call('ZRANGE', index, int(first), int(first + number - 1))) do
    if redis.call('EXISTS', endpoint(one)) == 0 then
      redis.call('ZREM', index, one)
    end
  end
end

local time = now()
drop_expired_listener(time)
if own == '0' then
  for _, other in ipairs(redis.call('SMEMBERS', registered(user))) do
    local fields = redis.call('HMGET', endpoint(other), 'url', 'disabled_at')
    if fields[1] == url and not fields[2] then
      return {'made', other, redis.call('HGETALL', endpoint(other))}
    end
  end
end
if redis.call('EXISTS', endpoint(id)) == 0 then
  local index = PREFIX .. 'endpoints:' .. user
  local count = redis.call('SCARD', registered(user))
  if own == '0' then
    count = redis.call('ZCARD', index) - count
  end
  if count >= most then
    if own == '0' then
      remove_expired(index, time % math.max(1, count - MAX_CHECKED), MAX_CHECKED)
    end
    return {'full'}
  end
  redis.call('HSET', endpoint(id), 'user', user, 'own', own, 'url', url, 'created_at', int(time),
    unpack(ARGV, 7))
  local ttl = redis.call('HGET', endpoint(id), 'listener')
  if ttl then
    redis.call('ZADD', LISTENING, int(time + number(ttl) * 1000000), id)
    redis.call('HSET', PREFIX .. 'delivering', id, LISTENER_IN_FLIGHT)
  end
  remove_expired(index, 0, 2)
  redis.call('ZADD', index, int(time), id)
  if own == '1' then
    redis.call('SADD', registered(user), id)
    subscribe(user)
  end
  if redis.call('EXISTS', registered(user)) == 1 then
    redis.call('PERSIST', index)
  else
    redis.call('PEXPIRE', index, 2 * keep)
  end
elseif own == '0' then
  local reason = redis.call('HGET', endpoint(id), 'disabled_because')
  if reason and reason ~= 'owner' then
    enable(id)
  end
end
if own == '0' then
  redis.call('PEXPIRE', endpoint(id), keep)
end
return {'made', id, redis.call('HGETALL', endpoint(id))}
