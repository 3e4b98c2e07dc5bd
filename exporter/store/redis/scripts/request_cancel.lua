-- request_cancel(id, keep_record in ms) -> all fields of the record; none if there is none
local id, keep_record = ARGV[1], ARGV[2]

local fields = redis.call('HMGET', record(id), 'state', 'deleted', 'whole')
local state, hidden = fields[1], fields[2] or fields[3]
if hidden then
  return {}
end
local after
if state == 'queued' then
  withdraw(id, now())
  after = redis.call('HGETALL', record(id))
  redis.call('PEXPIRE', record(id), keep_record)
elseif state == 'processing' then
  ask_to_stop(id, now())
end
return after or redis.call('HGETALL', record(id))
