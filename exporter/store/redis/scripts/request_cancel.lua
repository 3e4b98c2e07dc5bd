-- request_cancel(id, keep_record in ms) -> all fields of the record after the call; {} if the id is
--   unknown, deleted or that of a partition
local id, keep_record = ARGV[1], ARGV[2]

local fields = redis.call('HMGET', record(id), 'state', 'deleted', 'whole')
local state, hidden = fields[1], fields[2] or fields[3]
if hidden then
  return {}
end
local after
if state == 'queued' then
  local time = now()
  cancel_queued(id, time)
  after = redis.call('HGETALL', record(id))
  expire_record(id, time, keep_record)
elseif state == 'processing' then
  request_stop(id, now())
end
return after or redis.call('HGETALL', record(id))
