-- end(id, fence, state, keep_record in ms, result or '', error or '', keep_file or '', rows, bytes,
--     charged or '')
--   -> 1, or 0 for a stale fence
--
-- `keep_file` is in microseconds. A second call with the same fence and state changes nothing and
-- returns 1.
local id, fence, state, keep_record = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local result, error_text, keep_file = ARGV[5], ARGV[6], tonumber(ARGV[7])
local rows, bytes, charged = ARGV[8], ARGV[9], tonumber(ARGV[10] or '')

local before = redis.call('HMGET', record(id), 'state', 'fence', 'whole', 'worker_id', 'deleted',
  'partitions')
if before[1] == state and before[2] == fence then
  return 1
end
if not holds_lease(id, fence) then
  return 0
end
local time = now()
local parent, worker, deleted, partitions = unpack(before, 3, 6)

-- Ends a partition. If it did not finish, the other partitions are useless and are requested to
-- stop; the export then fails, is canceled or is rejoined.
local function end_partition()
  if state == 'finished' then
    local fields = redis.call('HMGET', record(id), 'progress', 'rows', 'weight')
    local share = (1 - tonumber(fields[1] or 0)) * tonumber(fields[3])
    advance_parent(parent, share, math.max(tonumber(rows) - tonumber(fields[2] or 0), 0), time)
    redis.call('HSET', record(id), 'progress', '1.0', 'result', result)
    emit_progress(id, time)
  else
    if redis.call('HEXISTS', record(id), 'unread') == 1 then
      -- The next worker of the export reads this record too: remove what it may not be able to
      -- read.
      redis.call('HDEL', record(id), 'checkpoint', 'progress', 'worker_id', 'attempts', 'stalls',
        'stalled_since', 'wrong_answers', 'retry_at')
    end
    for _, one in ipairs(live_partitions(parent)) do
      request_stop(one, time)
    end
  end
  make_ready_if_partitions_ended(parent, time)
end

-- Ends the export or partition, if its fields are those of a sound record.
local function end_sound()
  drop_lease(id)
  redis.call('HDEL', record(id), 'closing', 'error', parent and 'closing' or 'checkpoint')
  local fields = {'state', state, 'phase', 'done', 'updated_at', int(time),
    'completed_at', int(time)}
  local function set(name, value)
    table.insert(fields, name)
    table.insert(fields, value)
  end
  if error_text ~= '' then
    set('error', error_text)
  end
  if state == 'finished' and not parent then
    set('progress', '1.0')
    set('result', result)
    if keep_file then
      set('file_expires_at', int(time + keep_file))
    end
  end
  redis.call('HSET', record(id), unpack(fields))

  if parent then
    end_partition()
    return
  end
  if partitions then
    forget_partitions(id)
  end
  if not deleted then
    local outcome = string.match(result, '"outcome":"(%l+)"')
    move_in_lists(id, 'processing', state, outcome and 'outcome:' .. outcome)
  end
  if state == 'finished' then
    if keep_file and not deleted then
      redis.call('ZADD', PREFIX .. 'kept', int(time + keep_file), id)
    end
    count('rows', rows)
    count('file_bytes', bytes)
  end
  add_activity(id, time, state == 'finished' and 'published' or state, worker or '', error_text)
  count('exports_' .. state)
  local payable = (state == 'finished' and not deleted) and tonumber(rows) or 0
  if payable == 0 and charged and state ~= 'failed' then
    payable = math.max(charged, tonumber(redis.call('HGET', record(id), 'rows')) or 0)
  end
  settle(id, payable)
  emit(id, 'export.' .. state, time)
  if deleted then
    leave_tombstone(id, time)
  else
    expire_record(id, time, keep_record)
  end
end

local ok, failure = pcall(end_sound)
if not ok and state == 'finished' then
  error(failure, 0)
elseif not ok then
  force_end(id, state, error_text, time, keep_record)
end
return 1
