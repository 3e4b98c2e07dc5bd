-- end(id, fence, state, keep_record in ms, result or '', error or '', keep_file or '', rows, bytes)
--   -> 1, or 0 for a stale fence
local id, fence, state, keep_record = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local result, problem, keep_file = ARGV[5], ARGV[6], tonumber(ARGV[7])
local rows, bytes = ARGV[8], ARGV[9]

local before = redis.call('HMGET', record(id), 'state', 'fence', 'whole')
if before[1] == state and before[2] == fence then
  return 1
end
if not holds(id, fence) then
  return 0
end
local time = now()
local whole = before[3]
drop_lease(id)
redis.call('HDEL', record(id), 'closing', 'error')
redis.call('HSET', record(id), 'state', state, 'phase', 'done',
  'updated_at', int(time), 'completed_at', int(time))
if problem ~= '' then
  redis.call('HSET', record(id), 'error', problem)
end

-- One that is not read to its end makes the others useless; the export fails or is read as one.
local function end_partition()
  if state == 'finished' then
    local at = redis.call('HMGET', record(id), 'progress', 'rows', 'weight')
    local share = (1 - tonumber(at[1] or 0)) * tonumber(at[3])
    gain(whole, share, math.max(tonumber(rows) - tonumber(at[2] or 0), 0), time)
    redis.call('HSET', record(id), 'progress', '1.0', 'result', result)
    emit_progress(id, time)
  else
    if redis.call('HEXISTS', record(id), 'unread') == 1 then
      -- Whoever claims the export reads this record too.
      redis.call('HDEL', record(id), 'checkpoint', 'progress', 'worker_id', 'attempts', 'stalls',
        'stalled_since', 'retry_at')
    end
    for _, one in ipairs(live_partitions(whole)) do
      ask_to_stop(one, time)
    end
  end
  reunite(whole, time)
end

if whole then
  end_partition()
  return 1
end
local deleted = redis.call('HEXISTS', record(id), 'deleted') == 1
redis.call('HDEL', record(id), 'checkpoint')
forget_partitions(id)
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
