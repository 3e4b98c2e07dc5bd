-- request_cancel(id, keep_record in ms) -> all fields of the record; none if there is none
local id, keep_record = ARGV[1], ARGV[2]

local fields = redis.call('HMGET', record(id), 'state', 'phase', 'level', 'user')
local state, phase, level, user = fields[1], fields[2], fields[3], fields[4]
local after
if state == 'queued' then
  local time = now()
  step_out(level, user, id)
  redis.call('HSET', record(id), 'state', 'canceled', 'phase', 'done', 'cancel', '1',
    'updated_at', int(time), 'completed_at', int(time))
  after = redis.call('HGETALL', record(id))
  redis.call('PEXPIRE', record(id), keep_record)
elseif state == 'processing' then
  local time = now()
  redis.call('ZREM', 'exporter:waiting', id)
  if redis.call('HSETNX', record(id), 'cancel', '1') == 1 then
    redis.call('HSET', record(id), 'updated_at', int(time))
  end
  if phase == 'waiting' then
    make_ready(id, time)
  elseif phase == 'ready' then
    wake(level, id)
  end
end
return after or redis.call('HGETALL', record(id))
