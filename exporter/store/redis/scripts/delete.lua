-- delete(id, user) -> the state of the export after the call; nil if the user has no such export
local id, user = ARGV[1], ARGV[2]

local fields = redis.call('HMGET', record(id), 'user', 'state', 'deleted', 'whole')
local owner, state, deleted, parent = fields[1], fields[2], fields[3], fields[4]
if owner ~= user or parent then
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
  request_stop(id, time)
  return state
end
if state == 'queued' then
  cancel_queued(id, time)
  state = 'canceled'
end
leave_tombstone(id, time)
return state
