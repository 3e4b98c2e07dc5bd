-- delete(id, user, or '' for any) -> the state of the export after the call; nil if the user has no
--   such export
--
-- An export whose record cannot be processed is canceled at once, without a worker.
local id, user = ARGV[1], ARGV[2]

local fields = redis.call('HMGET', record(id), 'user', 'state', 'deleted', 'whole',
  'unread')
local owner, state, deleted, parent, unread = unpack(fields, 1, 5)
if not owner or (user ~= '' and owner ~= user) or parent then
  return false
end
if deleted then
  return state
end
local is_leased = redis.call('ZSCORE', PREFIX .. 'leases', id)
local time = now()
remove_from_lists(id, owner, state or '')
redis.call('ZREM', PREFIX .. 'kept', id)
redis.call('HSET', record(id), 'deleted', '1')
count('exports_deleted')
if ENDED[state] then
  leave_tombstone(id, time)
  return state
end
if state == 'processing' and (is_leased or not unread) and pcall(request_stop, id, time) then
  return state
end
if state == 'queued' and pcall(cancel_queued, id, time) then
  leave_tombstone(id, time)
else
  force_end(id, 'canceled', '', time)
end
return 'canceled'
