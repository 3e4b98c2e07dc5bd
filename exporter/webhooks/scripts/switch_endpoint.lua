-- switch_endpoint(id, user, 'disable', 'enable' or 'delete')
--   -> all fields of the endpoint after the change, for 'delete' before it; {} if the user has no
--      such endpoint
local id, user, action = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HGET', endpoint(id), 'user') ~= user then
  return {}
end
if action == 'disable' then
  disable(id, 'owner', now())
elseif action == 'enable' then
  enable(id)
end
local fields = redis.call('HGETALL', endpoint(id))
if action == 'delete' then
  delete_endpoint(id, user)
  if redis.call('ZADD', LISTENING, 'XX', 'CH', 0, id) == 1 then
    drop_expired_listener(now())
  end
end
return fields
