-- make_endpoint(id, user, own '1' or '0', url, most, keep in ms, name, value, …)
--   -> {'made', id, all fields}, or {'full'} if the user has `most` registered ones
--
-- With own '0' it may be one that is there: a registered one of that URL, or the one of that id,
-- which is asked for once more and so is enabled again unless its owner disabled it.
local id, user, own, url = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most, keep = tonumber(ARGV[5]), tonumber(ARGV[6])

local time = now()
if own == '0' then
  for _, other in ipairs(redis.call('SMEMBERS', registered(user))) do
    local fields = redis.call('HMGET', endpoint(other), 'url', 'disabled_at')
    if fields[1] == url and not fields[2] then
      return {'made', other, redis.call('HGETALL', endpoint(other))}
    end
  end
end
if redis.call('EXISTS', endpoint(id)) == 0 then
  if own == '1' and redis.call('SCARD', registered(user)) >= most then
    return {'full'}
  end
  redis.call('HSET', endpoint(id), 'user', user, 'own', own, 'url', url, 'created_at', int(time),
    unpack(ARGV, 7))
  local index = 'exporter:endpoints:' .. user
  -- Those of a webhook_url expire by themselves, their place in the list does not.
  for _, oldest in ipairs(redis.call('ZRANGE', index, 0, 1)) do
    if redis.call('EXISTS', endpoint(oldest)) == 0 then
      redis.call('ZREM', index, oldest)
    end
  end
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
  local because = redis.call('HGET', endpoint(id), 'disabled_because')
  if because and because ~= 'owner' then
    enable(id)
  end
end
if own == '0' then
  redis.call('PEXPIRE', endpoint(id), keep)
end
return {'made', id, redis.call('HGETALL', endpoint(id))}
