-- end(id, fence, state, keep_record in ms, result or '', error or '', keep_file or '', rows, bytes)
--   -> 1, or 0 for a stale fence
local id, fence, state, keep_record = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local result, problem, keep_file = ARGV[5], ARGV[6], tonumber(ARGV[7])
local rows, bytes = ARGV[8], ARGV[9]

local before = redis.call('HMGET', record(id), 'state', 'fence')
if before[1] == state and before[2] == fence then
  return 1
end
if not holds(id, fence) then
  return 0
end
local time = now()
local deleted = redis.call('HEXISTS', record(id), 'deleted') == 1
drop_lease(id)
redis.call('HDEL', record(id), 'checkpoint', 'closing', 'error')
redis.call('HSET', record(id), 'state', state, 'phase', 'done',
  'updated_at', int(time), 'completed_at', int(time))
if problem ~= '' then
  redis.call('HSET', record(id), 'error', problem)
end
if state == 'finished' then
  redis.call('HSET', record(id), 'progress', '1.0', 'result', result)
  if keep_file then
    redis.call('HSET', record(id), 'file_expires_at', int(time + keep_file))
    if not deleted then
      redis.call('ZADD', 'exporter:kept', int(time + keep_file), id)
    end
  end
  count('rows', rows)
  count('file_bytes', bytes)
end
count('exports_' .. state)
settle(id, (state == 'finished' and not deleted) and tonumber(rows) or 0)
emit(id, 'export.' .. state, time)
if deleted then
  bury(id, time)
else
  redis.call('PEXPIRE', record(id), keep_record)
end
return 1
