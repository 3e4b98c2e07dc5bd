-- rotate_secret(id, user, secret, grace, most)
--   -> all fields of the endpoint; {} if the user has none; {end of the earliest grace period} if
--      more than `most` secrets would sign
--
-- Replaces the current secret, which still signs for `grace` microseconds. Secrets that were
-- replaced earlier keep their end. Idempotent: a secret that the endpoint has already changes
-- nothing.
local id, user, secret, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local most = tonumber(ARGV[5])

local fields = redis.call('HMGET', endpoint(id), 'user', 'secrets')
if fields[1] ~= user then
  return {}
end
local time = now()
local secrets = {'0 ' .. secret}
local earliest
for before, other in string.gmatch(fields[2], '(%d+) (%S+)') do
  local until_then = tonumber(before)
  if other == secret then
    return redis.call('HGETALL', endpoint(id))
  end
  if until_then == 0 then
    until_then = time + grace
  end
  if until_then > time then
    earliest = math.min(earliest or until_then, until_then)
    table.insert(secrets, int(until_then) .. ' ' .. other)
  end
end
if #secrets > most then
  return {int(earliest)}
end
redis.call('HSET', endpoint(id), 'secrets', table.concat(secrets, '\n'))
return redis.call('HGETALL', endpoint(id))
