-- rotate_secret(id, user, secret, grace) -> all fields of the endpoint; none if there is none
--
-- Those in force before sign for `grace` microseconds more. The second call with one secret changes
-- nothing.
local id, user, secret, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local MOST = 5

local fields = redis.call('HMGET', endpoint(id), 'user', 'secrets')
if fields[1] ~= user then
  return {}
end
local time = now()
local secrets = {'0 ' .. secret}
for before, other in string.gmatch(fields[2], '(%d+) (%S+)') do
  local until_then = tonumber(before)
  if other == secret then
    return redis.call('HGETALL', endpoint(id))
  end
  if until_then == 0 then
    until_then = time + grace
  end
  if until_then > time and #secrets < MOST then
    table.insert(secrets, int(until_then) .. ' ' .. other)
  end
end
redis.call('HSET', endpoint(id), 'secrets', table.concat(secrets, '\n'))
return redis.call('HGETALL', endpoint(id))
