-- request_cancel(id, keep_record in ms, by) -> all fields of the record after the call; {} if the id is
--   unknown, deleted or that of a partition
--
-- An export whose record cannot be processed is canceled at once, without a worker.
local id, keep_record, by = ARGV[1], ARGV[2], ARGV[3] or ''

local fields = redis.call('HMGET', record(id), 'state', 'deleted', 'whole', 'unread')
local state, hidden, unread = fields[1], fields[2] or fields[3], fields[4]
if hidden then
  return {}
end
if ENDED[state] or (not state and redis.call('EXISTS', record(id)) == 0) then
  return redis.call('HGETALL', record(id))
end
local time = now()
local is_leased = redis.call('ZSCORE', PREFIX .. 'leases', id)
local is_requested = redis.call('HEXISTS', record(id), 'cancel') == 1
local after
if state == 'queued' and pcall(cancel_queued, id, time) then
  pcall(add_activity, id, time, 'canceled', by)
  after = redis.call('HGETALL', record(id))
  pcall(expire_record, id, time, keep_record)
elseif not (state == 'processing' and (is_leased or not unread) and pcall(request_stop, id, time))
then
  force_end(id, 'canceled', '', time, keep_record)
elseif not is_requested then
  pcall(add_activity, id, time, 'canceled', by, 'requested')
end
return after or redis.call('HGETALL', record(id))
