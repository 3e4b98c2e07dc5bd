-- delete(id, user) -> the state after that; nil if the user has no such export
local id, user = ARGV[1], ARGV[2]

local fields = redis.call('HMGET', record(id), 'user', 'state', 'deleted', 'whole')
local owner, state, deleted, whole = fields[1], fields[2], fields[3], fields[4]
if owner ~= user or whole then
  return false
end
if deleted then
  return state
end
local time = now()
redis.call('ZREM', 'exporter:user:' .. user, id)
redis.call('ZREM', 'exporter:kept', id)
redis.call('HSET', record(id), 'deleted', '1')
count('exports_deleted')
if state == 'processing' then
  ask_to_stop(id, time)
  return state
end
if state == 'queued' then
  withdraw(id, time)
  state = 'canceled'
end
bury(id, time)
return state
