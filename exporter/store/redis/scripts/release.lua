-- release(id, fence, clean '1' or '0', retry_in or '', reason or '', wrong_answers or '')
--   -> 1, or 0 for a stale fence
--
-- `retry_in` is in microseconds; with '' the export is ready at once.
local id, fence, clean, retry_in, reason = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

if not holds_lease(id, fence) then
  -- A current fence without a lease: a repeated call whose first answer was lost. (A sweep that
  -- removes an expired lease removes the fence, too.)
  local fields = redis.call('HMGET', record(id), 'state', 'fence')
  return (fields[1] == 'processing' and fields[2] == fence) and 1 or 0
end
local time = now()
drop_lease(id)
if not retry_in then
  redis.call('HSET', record(id), 'clean', clean)
  make_ready(id, time)
  return 1
end
redis.call('ZADD', PREFIX .. 'waiting', int(time + retry_in), id)
redis.call('HSET', record(id), 'clean', clean, 'phase', 'waiting',
  'retry_at', int(time + retry_in), 'updated_at', int(time))
redis.call('HINCRBY', record(id), 'stalls', 1)
count('stalls')
redis.call('HSETNX', record(id), 'stalled_since', int(time))
local parent = redis.call('HGET', record(id), 'whole')
if parent then
  add_activity_of_partition(id, parent, time, 'waiting', '', reason, time + retry_in)
else
  add_activity(id, time, 'waiting', '', reason, time + retry_in)
end
if reason ~= '' then
  redis.call('HSET', record(id), 'error', reason)
else
  redis.call('HDEL', record(id), 'error')
end
if (ARGV[6] or '') ~= '' then
  redis.call('HSET', record(id), 'wrong_answers', ARGV[6])
else
  redis.call('HDEL', record(id), 'wrong_answers')
end
return 1
