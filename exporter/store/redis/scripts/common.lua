-- Shared functions; put before every script that uses them, after index.lua. Names and shapes of all keys: ../keys.py
--
-- Every script gets one key, KEYS[1]: the prefix of all keys of the installation, "{exporter}:".
-- Its hash tag puts them all into one slot of Redis Cluster, so a script may use any key that it
-- builds from the prefix. Most keys are found in records and sets while a script runs, so no script could
-- name all of them beforehand. Scripts that can (acquire, pause, probe, reserve) are loaded without
-- this file and get all of their keys.
--
-- Fields of an export: spec, user, level, state, phase, created_at, updated_at.
--
-- Fields that are missing until they have a value: progress, started_at, completed_at, worker_id,
-- error, attempts, stalls, stalled_since, wrong_answers, retry_at, cancel ('1'), checkpoint, closing,
-- result, file_expires_at, rows (the most ever committed), activity (see add_activity).
--
-- Fields for the scripts alone: fence (of the latest claim), fences (number of claims), clean ('0':
-- a worker may still write), pages and parts (the most ever committed), asked (the requested
-- priority, while the level is above it), deleted ('1': hidden from its owner), concurrency (number
-- of leases of its user at which it is not claimed), payer and reserved (the paying key and the
-- reserved credits, until they are settled), unread (claims by workers that could not read it),
-- stored_bytes (size of the spec, if the record counts for the limits of its user).
--
-- Fields for events: hook_events (" {event} … ", the events that the endpoint of its webhook_url
-- subscribes to), sequence (number of events so far), told and told_at (content and time of the
-- latest progress event).
--
-- Fields of an export that was cut: partitions (their number; '0' if the export was rejoined and
-- can never be cut again) and, for the scripts alone, cut_by (the fence of the claim that cut it).
--
-- A partition is claimed, renewed, committed, released and ended by the id {id}/{place}, so this id
-- is in queues, waits and leases like that of an export. A partition has the fields of an export
-- that concern the work, and partition (its range of rows, as JSON), whole (the id of its export)
-- and weight (its share of the rows). It has no spec: a claim returns it with the spec of its
-- export. A worker of a version without partitions therefore cannot read the record and leaves it
-- to other workers. A partition is in no user's list, emits no event, has no payer and does not
-- expire: its record, with its checkpoint, is kept until its export has ended or is rejoined.
--
-- While an export has live partitions, it is processing, in phase reading, and in no queue, wait or
-- lease. When the last partition has ended, the export is made ready, and one worker composes its
-- file or ends it.
--
-- A level is the current priority of an export, 0 to 9: an export that is ready for long is raised
-- (ageing), and a claim resets the level to the requested priority. Between the users of a level
-- the queue is start-time fair queueing, counted in slices. Each level has its own virtual time:
-- with one for all levels, a user starved at level 0 while other users are served at level 9 would
-- be so far behind that a new user would have to wait for all slices owed to the starved user.
--
-- All times are microseconds since the epoch by the clock of Redis; as doubles they are exact
-- until the year 2255.
--
-- A full Redis refuses the first write of a script if that write needs memory, but no write after
-- the first. So the first write of every script only removes, except in create, cut, charge, grant
-- and the scripts that make an endpoint, a secret or a test. In a full Redis, running exports can
-- thus end and free memory, and their events are delivered, while new exports are refused.

-- Share of maxmemory above which create makes no export: the rest is for the exports that run.
local FULL_SHARE = 0.9
-- If a create finds a smaller share used, others do not look for that time: INFO takes 10 to 50 µs.
local ROOMY_SHARE, ROOMY_MICROS = 0.5, 20000
-- Expired records that one create removes from the counts of a user at most.
local MAX_FORGOTTEN = 100
-- Wake-ups kept; the oldest are dropped, because a lost wake-up causes no error.
local MAX_WAKES = 10000
-- Minimum time between two progress events of one export.
local MIN_PROGRESS_MICROS = 10000000
-- Time between two checks of an export that was cut.
local CUT_CHECK_MICROS = 60000000

-- Entries of an export's activity; the first FIRST_ACTIVITY of them are kept, and the latest.
local MAX_ACTIVITY, FIRST_ACTIVITY = 49, 9
-- Entries that make room for others first, because an export may have any number of them.
local ROUTINE = {slice = true, waiting = true, linked = true, downloaded = true, previewed = true}
-- Bytes of the shortest entry, and of the longest detail.
local MIN_ENTRY_BYTES, MAX_DETAIL_BYTES = 24, 1000

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function ready(level, user)
  return PREFIX .. 'ready:' .. level .. ':' .. user
end

local function tenants(level)
  return PREFIX .. 'tenants:' .. level
end

local function served(level)
  return PREFIX .. 'served:' .. level
end

local function virtual(level)
  return tonumber(redis.call('HGET', PREFIX .. 'virtual', level) or 0)
end

local function wake(level, id)
  redis.call('LTRIM', PREFIX .. 'wake', 0, MAX_WAKES - 2)
  redis.call('LPUSH', PREFIX .. 'wake', level .. ' ' .. id)
end

local function count(what, by)
  redis.call('HINCRBY', PREFIX .. 'counters', what, by or 1)
end

-- Returns the lines of an activity without one, if it has all that are kept: the first that is
-- routine and not among the first, or the one after these.
local function make_room(text)
  local lines = {}
  for line in string.gmatch(text, '[^\n]+') do
    table.insert(lines, line)
  end
  if #lines < MAX_ACTIVITY then
    return text
  end
  local gone = FIRST_ACTIVITY + 1
  for at = gone, #lines do
    if ROUTINE[string.match(lines[at], '^%["(%l+)"')] then
      gone = at
      break
    end
  end
  table.remove(lines, gone)
  return table.concat(lines, '\n')
end

-- Adds an entry to the activity of an export: lines of JSON [what, by, time, detail, until], oldest
-- first. An entry with the same `what` and `by` as the latest replaces it. `ends` is the time at which a
-- wait ends.
local function add_activity(id, time, what, by, detail, ends)
  local text = redis.call('HGET', record(id), 'activity') or ''
  detail = detail or ''
  if #detail > MAX_DETAIL_BYTES then
    -- No part of a character is left at the end.
    detail = string.gsub(string.sub(detail, 1, MAX_DETAIL_BYTES), '[\192-\255][\128-\191]*$', '')
  end
  local begin = string.sub(cjson.encode({what, by or ''}), 1, -2) .. ','
  local line = begin .. int(time) .. ',' .. cjson.encode(detail)
    .. (ends and ',' .. int(ends) or '') .. ']'
  local before, latest = string.match(text, '^(.*)\n([^\n]+)$')
  if string.sub(latest or text, 1, #begin) == begin then
    text = before or ''
  elseif #text > MAX_ACTIVITY * MIN_ENTRY_BYTES then
    text = make_room(text)
  end
  redis.call('HSET', record(id), 'activity', text == '' and line or text .. '\n' .. line)
end

-- Adds an entry about a partition to the activity of its export.
local function add_activity_of_partition(id, parent, time, what, by, detail, ends)
  local place = string.match(id, '/(%d+)$') or '?'
  detail = 'partition ' .. place .. ((detail or '') ~= '' and ': ' .. detail or '')
  add_activity(parent, time, what, by, detail, ends)
end

-- Wakes the webhook senders.
local function wake_senders()
  if redis.call('EXISTS', PREFIX .. 'ring') == 0 then
    redis.call('LPUSH', PREFIX .. 'ring', '1')
  end
end

-- True if an endpoint subscribes to that event of the user's exports. `of_this_one` are the events
-- that the endpoint of the export's own webhook_url subscribes to.
local function has_subscriber(user, kind, of_this_one)
  local wanted = (redis.call('HGET', PREFIX .. 'listeners', user) or '') .. (of_this_one or '')
  return string.find(wanted, ' ' .. kind .. ' ', 1, true) ~= nil
end

-- Adds an event to the end of the outbox and wakes the senders.
local function append_event(kind, id, sequence, time, progress, rows)
  redis.call('RPUSH', PREFIX .. 'outbox',
    table.concat({kind, int(time), sequence, progress, rows, id}, ' '))
  wake_senders()
end

local function append_event_of_export(id, kind, time)
  local fields = redis.call('HMGET', record(id), 'user', 'deleted', 'hook_events', 'progress', 'rows',
    'whole')
  if fields[1] and not fields[2] and not fields[6] and has_subscriber(fields[1], kind, fields[3]) then
    local sequence = redis.call('HINCRBY', record(id), 'sequence', 1)
    append_event(kind, id, sequence, time, fields[4] or '0', fields[5] or '0')
  end
end

-- Adds an event of an export to the outbox, if an endpoint subscribes to it. Each script calls this
-- after the state change and in the same atomic step: a receiver of the event reads that state or a
-- later one, and no event is lost or emitted twice. Deleted exports and partitions emit no event,
-- nor does an export whose fields for events are damaged.
local function emit(id, kind, time)
  if not pcall(append_event_of_export, id, kind, time) then
    count('events_dropped')
  end
end

-- Emits a progress event of an export, or of a partition's export, if progress or rows changed
-- since the latest progress event and that event is at least MIN_PROGRESS_MICROS old.
local function emit_progress(id, time)
  id = redis.call('HGET', record(id), 'whole') or id
  local fields = redis.call('HMGET', record(id), 'user', 'hook_events', 'progress', 'rows', 'told',
    'told_at')
  if not fields[1] or not has_subscriber(fields[1], 'export.progress', fields[2]) then
    return
  end
  local latest = (fields[3] or '0') .. ' ' .. (fields[4] or '0')
  if latest ~= (fields[5] or '0 0')
    and math.abs(time - tonumber(fields[6] or 0)) >= MIN_PROGRESS_MICROS then
    redis.call('HSET', record(id), 'told', latest, 'told_at', int(time))
    emit(id, 'export.progress', time)
  end
end

-- Raises an error unless a record can be queued at that level for that user.
local function check_place(level, user)
  if not user or not string.match(tostring(level), '^%d$') then
    error('user ' .. tostring(user) .. ', level ' .. tostring(level), 0)
  end
end

-- Adds an export to the end of its user's queue, and the user to the level's queue if missing. A
-- user who had no ready export starts at the level's virtual time or at its own saved start, if
-- later: absence earns no credit, and leaving the queue and returning gains nothing.
local function enqueue(level, user, id, time)
  check_place(level, user)
  local since = time
  local line = ready(level, user)
  local tail = redis.call('ZREVRANGE', line, 0, 0, 'WITHSCORES')
  if tail[2] then
    -- Keeps the order if two exports come in one microsecond or the clock is set back.
    time = math.max(time, tonumber(tail[2]) + 1)
  else
    local start = math.max(tonumber(redis.call('ZSCORE', served(level), user) or 0), virtual(level))
    redis.call('ZREM', served(level), user)
    redis.call('ZADD', tenants(level), int(start), user)
  end
  if redis.call('ZADD', line, int(time), id) == 1 then
    redis.call('HINCRBY', PREFIX .. 'lined', level, 1)
    if tonumber(level) < 9 then
      redis.call('ZADD', PREFIX .. 'ageing', int(since), id)
    end
  end
end

-- Enqueues an export and wakes a worker for it.
local function enqueue_and_wake(level, user, id, time)
  enqueue(level, user, id, time)
  wake(level, id)
end

-- Removes an export from the queue, and its user from the level if no ready export is left.
local function leave_queue(level, user, id)
  local line = ready(level, user)
  if redis.call('ZREM', line, id) == 1 then
    redis.call('ZREM', PREFIX .. 'ageing', id)
    if redis.call('HINCRBY', PREFIX .. 'lined', level, -1) <= 0 then
      redis.call('HDEL', PREFIX .. 'lined', level)
    end
  end
  if redis.call('EXISTS', line) == 0 then
    local start = redis.call('ZSCORE', tenants(level), user)
    redis.call('ZREM', tenants(level), user)
    if start and tonumber(start) > virtual(level) then
      redis.call('ZADD', served(level), start, user)
    end
  end
end

-- Makes an export or partition ready: sets phase ready, enqueues it and wakes a worker.
local function make_ready(id, time)
  local fields = redis.call('HMGET', record(id), 'level', 'user')
  redis.call('HSET', record(id), 'phase', 'ready', 'updated_at', int(time))
  redis.call('HDEL', record(id), 'retry_at')
  enqueue_and_wake(fields[1], fields[2], id, time)
end

-- True if that fence has the lease. An expired lease stays valid until a sweep removes it, because
-- no other worker can claim the export before that.
local function holds_lease(id, fence)
  local fields = redis.call('HMGET', record(id), 'state', 'fence')
  return fields[1] == 'processing' and fields[2] == fence
    and redis.call('ZSCORE', PREFIX .. 'leases', id) ~= false
end

-- Ends a lease and frees the slot of the user for whom it was claimed. (A claim by an earlier
-- version did not store that user.)
local function drop_lease(id)
  redis.call('ZREM', PREFIX .. 'leases', id)
  local user = redis.call('HGET', PREFIX .. 'leased', id) or redis.call('HGET', record(id), 'user')
  redis.call('HDEL', PREFIX .. 'leased', id)
  if user and redis.call('HINCRBY', PREFIX .. 'running', user, -1) <= 0 then
    redis.call('HDEL', PREFIX .. 'running', user)
  end
end

-- Adds a partition's gain in progress and rows to its export. Progress stays at most 0.99.
local function advance_parent(parent, share, rows, time)
  local fields = redis.call('HMGET', record(parent), 'state', 'progress')
  if fields[1] ~= 'processing' then
    return
  end
  local before = tonumber(fields[2] or 0)
  local after = math.min(0.99, before + share)
  if after > before then
    redis.call('HSET', record(parent), 'progress', string.format('%.17g', after))
  end
  if rows > 0 then
    redis.call('HINCRBY', record(parent), 'rows', int(rows))
  end
  redis.call('HSET', record(parent), 'updated_at', int(time))
end

-- Moves progress and rows of an export or partition forward, never back.
local function advance(id, time, progress, rows)
  local fields = redis.call('HMGET', record(id), 'progress', 'rows', 'whole', 'weight')
  local before, after = tonumber(fields[1] or 0), tonumber(progress)
  if after and before < after and after < 1 then
    redis.call('HSET', record(id), 'progress', progress)
  else
    after = before
  end
  local most = tonumber(fields[2] or 0)
  if rows > most then
    redis.call('HSET', record(id), 'rows', int(rows))
  end
  if fields[3] then
    local share = (after - before) * tonumber(fields[4])
    advance_parent(fields[3], share, math.max(rows - most, 0), time)
  end
end

-- Renews a valid lease; returns 'cancel' if the export was requested to stop, else 'continue'.
local function renew_lease(id, time, lease)
  redis.call('ZREM', PREFIX .. 'leases', id)
  redis.call('ZADD', PREFIX .. 'leases', int(time + lease), id)
  redis.call('HSET', record(id), 'updated_at', int(time))
  return redis.call('HEXISTS', record(id), 'cancel') == 1 and 'cancel' or 'continue'
end

-- Phase of an export under a lease: 'completing' if `closing` is set or it was cut, else 'reading'.
local function phase_at_work(id)
  local fields = redis.call('HMGET', record(id), 'closing', 'partitions')
  return (fields[1] or tonumber(fields[2] or 0) > 0) and 'completing' or 'reading'
end

-- Returns all fields of a record; for a partition, with the spec of its export.
local function all_fields(id)
  local fields = redis.call('HGETALL', record(id))
  local parent
  for at = 1, #fields, 2 do
    parent = fields[at] == 'whole' and fields[at + 1] or parent
  end
  local spec = parent and redis.call('HGET', record(parent), 'spec')
  if spec then
    table.insert(fields, 'spec')
    table.insert(fields, spec)
  end
  return fields
end

-- The largest number of partitions that the settings allow; a damaged record may have a number that
-- a loop never reaches.
local MAX_PARTITIONS = 1000

-- Returns the ids of an export's partitions that have not ended.
local function live_partitions(id)
  local live = {}
  local count = tonumber(redis.call('HGET', record(id), 'partitions') or 0)
  for place = 0, math.min(count, MAX_PARTITIONS) - 1 do
    local one = id .. '/' .. place
    if redis.call('HGET', record(one), 'state') == 'processing' then
      table.insert(live, one)
    end
  end
  return live
end

-- Makes an export ready that waits for its partitions, if all of them have ended.
local function make_ready_if_partitions_ended(id, time)
  local fields = redis.call('HMGET', record(id), 'state', 'level', 'user')
  if fields[1] == 'processing' and not redis.call('ZSCORE', PREFIX .. 'leases', id)
    and not redis.call('ZSCORE', PREFIX .. 'waiting', id)
    and not redis.call('ZSCORE', ready(fields[2], fields[3]), id) and #live_partitions(id) == 0 then
    make_ready(id, time)
  end
end

-- Removes the records of all partitions of an export that has ended or is rejoined.
local function forget_partitions(id)
  redis.call('ZREM', PREFIX .. 'cut', id)
  local place = 0
  while redis.call('DEL', record(id .. '/' .. place)) == 1 do
    place = place + 1
  end
end

-- Requests the worker of a processing export to stop. A waiting export is made ready, and a worker
-- is woken for a ready export, so that a worker ends it. Applies to all live partitions as well.
local function request_stop(id, time)
  local fields = redis.call('HMGET', record(id), 'phase', 'level')
  local waited = redis.call('ZREM', PREFIX .. 'waiting', id) == 1
  if redis.call('HSETNX', record(id), 'cancel', '1') == 1 then
    redis.call('HSET', record(id), 'updated_at', int(time))
  end
  if waited or fields[1] == 'waiting' then
    make_ready(id, time)
  elseif fields[1] == 'ready' then
    wake(fields[2], id)
  end
  for _, one in ipairs(live_partitions(id)) do
    request_stop(one, time)
  end
end

local function account(key)
  return PREFIX .. 'account:' .. key
end

-- True if no API key has that id, because it was revoked or never existed.
local function is_revoked(key)
  return redis.call('HEXISTS', PREFIX .. 'keys', key) == 0
end

-- Returns the credits that a key may spend; nil if it is not metered, 0 if it was revoked.
local function credits_left(key)
  return is_revoked(key) and 0 or tonumber(redis.call('HGET', account(key), 'left'))
end

-- Charges an ended export for its rows and gives the rest of its reserved credits back. Idempotent.
-- Without reserved credits nothing is charged, but the rows are added to the key's `used`.
local function settle(id, rows)
  local fields = redis.call('HMGET', record(id), 'payer', 'reserved')
  local payer, reserved = fields[1], tonumber(fields[2]) or 0
  if not payer then
    return
  end
  redis.call('HDEL', record(id), 'payer', 'reserved')
  if reserved > 0 then
    rows = math.min(rows, reserved)
    count('credits_charged', rows)
    count('credits_given_back', reserved - rows)
  end
  if is_revoked(payer) then
    return
  end
  redis.call('HINCRBY', account(payer), 'used', rows)
  if reserved > 0 then
    redis.call('HINCRBY', account(payer), 'reserved', -reserved)
    if credits_left(payer) then
      redis.call('HINCRBY', account(payer), 'left', reserved - rows)
    end
  end
end

local function stored(user)
  return PREFIX .. 'stored:' .. user
end

local function stored_bytes(user)
  return PREFIX .. 'stored_bytes:' .. user
end

-- Removes a record from the counts of its user; `member` is its entry in stored:{user}.
local function forget_stored(user, member)
  if redis.call('ZREM', stored(user), member) == 1 then
    redis.call('DECRBY', stored_bytes(user), string.match(member, '^%d+'))
  end
end

-- Makes a record expire after `millis`, in the lists and in the counts of its user as well.
local function expire_record(id, time, millis)
  local fields = redis.call('HMGET', record(id), 'user', 'stored_bytes', 'deleted')
  local user, bytes = fields[1], fields[2]
  redis.call('PEXPIRE', record(id), millis)
  if not fields[3] then
    redis.call('ZADD', PREFIX .. 'expiring', int(time + millis * 1000), id)
  end
  if not bytes then
    return
  end
  redis.call('ZADD', stored(user), 'XX', int(time + millis * 1000), bytes .. ' ' .. id)
  local last = redis.call('ZREVRANGE', stored(user), 0, 0, 'WITHSCORES')[2]
  if last and last ~= 'inf' then
    redis.call('PEXPIREAT', stored(user), int(math.ceil(tonumber(last) / 1000)))
    redis.call('PEXPIREAT', stored_bytes(user), int(math.ceil(tonumber(last) / 1000)))
  end
end

-- Cancels a queued export, which no worker has claimed yet.
local function cancel_queued(id, time)
  local fields = redis.call('HMGET', record(id), 'level', 'user')
  leave_queue(fields[1], fields[2], id)
  redis.call('HSET', record(id), 'state', 'canceled', 'phase', 'done', 'cancel', '1',
    'updated_at', int(time), 'completed_at', int(time))
  move_in_lists(id, 'queued', 'canceled')
  count('exports_canceled')
  settle(id, 0)
  emit(id, 'export.canceled', time)
end

-- Removes a deleted export that has ended. Its record stays for 60 s as a tombstone, which answers
-- a repeated delete whose first answer was lost.
local function leave_tombstone(id, time)
  redis.call('ZADD', PREFIX .. 'deleted', int(time), id)
  expire_record(id, time, 60000)
end

-- Unsuccessful tries to process a record, after which its export fails.
local MAX_TRIES = 10
-- Time between two of these tries, unless the caller has another.
local SET_ASIDE_MICROS = 30000000
-- Time for which the record of an export that failed in this way is kept.
local KEEP_UNREADABLE_MILLIS = 2592000000
local ENDED = {finished = true, failed = true, canceled = true}

-- True if the record is of an export or partition that has not ended; false if it has, or if there
-- is no record. Raises an error for a state that this version does not know. `state` is that of the
-- record, if the caller has read it.
local function is_live(id, state)
  state = state or redis.call('HGET', record(id), 'state')
  if state == 'queued' or state == 'processing' then
    return true
  end
  if not state and redis.call('EXISTS', record(id)) == 1 or state and not ENDED[state] then
    error('state ' .. tostring(state), 0)
  end
  return false
end

-- Ends an export or partition whatever its fields contain. A step that the fields make fail is left
-- out; an entry in the queue is removed by the next claim.
local function force_end(id, state, why, time, keep)
  for _, set in ipairs({'waiting', 'cut', 'ageing'}) do
    redis.call('ZREM', PREFIX .. set, id)
  end
  if redis.call('ZSCORE', PREFIX .. 'leases', id) then
    drop_lease(id)
  end
  if redis.call('TYPE', record(id)).ok ~= 'hash' then
    redis.call('DEL', record(id))
    return
  end
  local fields = redis.call('HMGET', record(id), 'level', 'user', 'whole', 'deleted')
  pcall(leave_queue, fields[1], fields[2], id)
  -- The worker that ends the export of a partition reads this record, so it must be readable.
  redis.call('HDEL', record(id), 'checkpoint', 'closing', 'progress', 'worker_id', 'attempts',
    'stalls', 'stalled_since', 'wrong_answers', 'retry_at', 'rows', 'error')
  redis.call('HSET', record(id), 'state', state, 'phase', 'done', 'updated_at', int(time),
    'completed_at', int(time))
  if state == 'failed' then
    redis.call('HSET', record(id), 'error', why)
  end
  if fields[3] then
    pcall(function()
      for _, one in ipairs(live_partitions(fields[3])) do
        request_stop(one, time)
      end
      make_ready_if_partitions_ended(fields[3], time)
    end)
    return
  end
  forget_partitions(id)
  pcall(move_in_lists, id, 'processing', state)
  pcall(add_activity, id, time, state, '', why)
  count('exports_' .. state)
  pcall(settle, id, 0)
  emit(id, 'export.' .. state, time)
  if fields[4] then
    pcall(leave_tombstone, id, time)
  else
    pcall(expire_record, id, time, keep or KEEP_UNREADABLE_MILLIS)
  end
end

-- Lets a record that cannot be processed wait, for a worker of another version. After MAX_TRIES the
-- export fails; if its owner wants it to stop, it ends at once. Returns the number of tries.
local function set_aside(id, why, time, wait, clean)
  redis.call('ZREM', PREFIX .. 'waiting', id)
  if redis.call('ZSCORE', PREFIX .. 'leases', id) then
    drop_lease(id)
  end
  count('records_set_aside')
  local fields = {}
  if redis.call('TYPE', record(id)).ok == 'hash' then
    fields = redis.call('HMGET', record(id), 'unread', 'cancel', 'deleted', 'state')
  end
  local tries = math.max(tonumber(fields[1]) or 0, 0) + 1
  if fields[2] or fields[3] then
    force_end(id, 'canceled', why, time)
  elseif tries >= MAX_TRIES or not fields[4] then
    force_end(id, 'failed', why, time)
  else
    redis.call('HSET', record(id), 'unread', int(tries), 'state', 'processing', 'phase', 'waiting',
      'retry_at', int(time + wait), 'updated_at', int(time), 'error', why)
    pcall(move_in_lists, id, fields[4], 'processing')
    pcall(add_activity, id, time, 'waiting', '', why, time + wait)
    if clean then
      redis.call('HSET', record(id), 'clean', clean)
    end
    redis.call('ZADD', PREFIX .. 'waiting', int(time + wait), id)
  end
  return tries
end

-- Errors of Redis that no record causes.
local SERVER_ERRORS = {'OOM ', 'MISCONF', 'READONLY', 'NOREPLICAS', 'NOPERM'}

-- Returns the text of a failure of pcall. Raises the failure again if it is an error of Redis.
local function reason_of(failure)
  local why = type(failure) == 'table' and failure.err or tostring(failure)
  for _, word in ipairs(SERVER_ERRORS) do
    if string.find(why, word, 1, true) then
      error(failure, 0)
    end
  end
  return why
end

-- Ids of the records that this call has set aside, each followed by the reason.
local aside = {}

-- Runs one step for one record and returns its result. If the fields of the record make the step
-- fail, sets that record aside and returns nil, so that the script goes on with other records.
local function contain(id, time, step)
  local ok, result = pcall(step)
  if ok then
    return result
  end
  local why = "this version of the exporter cannot read the export's record: " .. reason_of(result)
  set_aside(id, why, time, SET_ASIDE_MICROS)
  table.insert(aside, id)
  table.insert(aside, why)
end

-- Makes up to `limit` waiting exports ready whose retry time is reached; returns their number.
local function end_waits(time, limit)
  local due = redis.call('ZRANGEBYSCORE', PREFIX .. 'waiting', '-inf', int(time), 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    redis.call('ZREM', PREFIX .. 'waiting', id)
    contain(id, time, function()
      if is_live(id) then
        make_ready(id, time)
      end
    end)
  end
  return #due
end
