-- switch_endpoint(id, user, 'disable', 'enable' or 'delete')
--   -> all fields of the endpoint, before it was deleted; none if there is none
local id, user, how = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HGET', endpoint(id), 'user') ~= user then
  return {}
end
if how == 'disable' then
  disable(id, 'owner', now())
elseif how == 'enable' then
  enable(id)
end
local fields = redis.call('HGETALL', endpoint(id))
if how == 'delete' then
  redis.call('DEL', endpoint(id))
  redis.call('ZREM', 'exporter:endpoints:' .. user, id)
  redis.call('SREM', registered(user), id)
  subscribe(user)
  schedule_endpoint(id)
end
return fields
