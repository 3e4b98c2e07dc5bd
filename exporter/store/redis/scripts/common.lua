-- Stands before every script. The names and shapes of all keys:
--
--   exporter:export:{id}             hash    one export, its fields below
--   exporter:export:{id}/{place}     hash    one of the partitions that it is cut into, likewise
--   exporter:user:{user}             zset    id -> created_at, made unique, all exports of a user
--   exporter:users                   zset    user -> when to look for expired exports in that list
--   exporter:ready:{level}:{user}    zset    id -> when it lined up, the ready exports of a user
--   exporter:tenants:{level}         zset    user -> start of its next slice, if it has a ready export
--   exporter:served:{level}          zset    user -> the same without one, while it is in the future
--   exporter:virtual                 hash    level -> start of the slice claimed last
--   exporter:lined                   hash    level -> how many exports are ready
--   exporter:ageing                  zset    id -> since when it is ready at its level, below 9
--   exporter:running                 hash    user -> live leases
--   exporter:leases                  zset    id -> when the lease expires
--   exporter:waiting                 zset    id -> when to try again
--   exporter:cut                     zset    id -> when to look after it, the exports that are cut
--   exporter:kept                    zset    id -> when the file is to be deleted
--   exporter:deleted                 zset    id -> since when its objects may be deleted
--   exporter:wake                    list    "{level} {id}", newest first
--   exporter:keys                    hash    id of an API key -> digest of the key
--   exporter:key:{digest}            string  an API key and its plan, as JSON
--   exporter:account:{key id}        hash    left (credits; without it the key is not metered),
--                                            reserved (for exports that have not ended), used
--   exporter:credited:{nonce}        string  the answer of a charge or a grant, for a minute
--   exporter:budget:{source}         string  when the next request to a source may start
--   exporter:rate:{name}             list    when each hit within the window of a rate was
--   exporter:claim:{nonce}           string  "{clean} {id}", the answer of a claim, for a minute; of
--                                            a claim of a delivery, its id
--   exporter:idempotency:{digest}    string  "{fingerprint} {id}", what a user's key created, for a day
--   exporter:since                   integer when the first export was created
--   exporter:walk                    string  where the last walk through the bucket stopped
--   exporter:counters                hash    what happened -> how often, since the first export
--   exporter:listeners               hash    user -> " {event} … ", what its registered endpoints want
--   exporter:outbox                  list    "{event} {time} {sequence} {progress} {rows} {id}", what
--                                            happened to an export or endpoint, oldest first
--   exporter:ring                    list    one entry, if something was put into the outbox or in line
--   exporter:endpoint:{id}           hash    whom webhooks are sent to; see webhooks/common.lua
--   exporter:endpoints:{user}        zset    id -> created_at, all endpoints of a user
--   exporter:registered:{user}       set     ids of those that hear of all the user's exports
--   exporter:delivery:{id}           hash    one event on its way to one endpoint
--   exporter:deliveries:{endpoint}   zset    id -> created_at, made unique
--   exporter:told:{export}           zset    the same, by export
--   exporter:dead:{user}             zset    id -> when it was given up, made unique
--   exporter:due:{endpoint}          zset    id -> when to try, those that wait for nothing else
--   exporter:order:{endpoint}:{export} zset  id -> sequence, those of an ordered endpoint not finished
--   exporter:progress:{endpoint}     hash    export -> the delivery of its latest progress
--   exporter:lane:{fast or slow}     zset    endpoint -> since when it is its turn
--   exporter:delivering              hash    endpoint -> tries under way
--   exporter:delivery_leases         zset    id -> when the try is given up for lost
--
-- Fields of an export: spec, user, level, state, phase, created_at, updated_at; once they are
-- known progress, started_at, completed_at, worker_id, error, attempts, stalls, stalled_since,
-- retry_at, cancel ('1'), checkpoint, closing, result, file_expires_at; and for the scripts alone
-- fence (of the latest claim), fences (how many there were), clean ('0': its worker may still
-- write), pages and parts (the most ever committed), asked (its priority, while it is risen above
-- that), deleted ('1': its owner may not see it any more), concurrency (live leases of its user
-- with which it stays in line), payer and reserved (whose credits it took and how many, until that
-- is settled), unread (claims by workers that could not read it); and for what is told of it
-- hook_events (" {event} … ", what the endpoint of its webhook_url wants), sequence (events so far),
-- rows (the most ever committed), told and told_at (what the latest progress event said, and when).
-- Of one that was cut: partitions (how many; '0' if it is read as one for good) and, for the scripts
-- alone, cut_by (the fence that did it).
--
-- A partition is claimed, renewed, committed, released and ended by the id {id}/{place}, so in
-- lines, waits and leases it stands as exports do. Its fields are theirs as far as they concern the
-- work, and partition (which stretch it is, as JSON), whole (the id of its export) and weight (its
-- share of the rows). It has no spec: whoever claims it is given that of its export, and a worker
-- that knows of no partitions finds a record that it cannot read and leaves it to others. It is in
-- no list, tells nobody anything, is paid by nobody and does not expire: its record stays as it
-- ended, checkpoint and all, until its export has ended or is read as one again.
--
-- While partitions are live their export is processing, in phase reading, and in no line, wait or
-- lease. With the end of the last it comes into line, to be put together or ended by one worker.
--
-- A level is what a priority is worth now, 0 to 9: an export ready for long rises, and falls back
-- to what was asked once it is claimed. Between users of a level it is start-time fair
-- queueing, counted in slices. Each level has its own account: with one for all, a user starved at
-- level 0 while others are served at 9 would be so far behind that a newcomer had to wait for all
-- of it.
--
-- All times are microseconds since the epoch by the clock of Redis; as doubles they are exact
-- until the year 2255.
--
-- A full Redis refuses the first command of a script that grows it, never one after a write. So
-- the first write of every script but create, cut, charge, grant, and those that make an endpoint,
-- a secret or a test, is one that only removes: exports under way can end, and make room, and what
-- they tell goes out, while new ones are refused.

local WAKES = 10000
local PROGRESS_EVERY = 10000000
local LOOK_AFTER = 60000000

local function int(number)
  return string.format('%.0f', number)
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function record(id)
  return 'exporter:export:' .. id
end

local function ready(level, user)
  return 'exporter:ready:' .. level .. ':' .. user
end

local function tenants(level)
  return 'exporter:tenants:' .. level
end

local function served(level)
  return 'exporter:served:' .. level
end

local function virtual(level)
  return tonumber(redis.call('HGET', 'exporter:virtual', level) or 0)
end

local function wake(level, id)
  redis.call('LTRIM', 'exporter:wake', 0, WAKES - 2)
  redis.call('LPUSH', 'exporter:wake', level .. ' ' .. id)
end

local function count(what, by)
  redis.call('HINCRBY', 'exporter:counters', what, by or 1)
end

-- Wakes whoever sends webhooks.
local function wake_senders()
  if redis.call('EXISTS', 'exporter:ring') == 0 then
    redis.call('LPUSH', 'exporter:ring', '1')
  end
end

-- Whether anybody wants to hear of events of that kind, of one user's exports.
local function has_subscriber(user, kind, of_this_one)
  local wanted = (redis.call('HGET', 'exporter:listeners', user) or '') .. (of_this_one or '')
  return string.find(wanted, ' ' .. kind .. ' ', 1, true) ~= nil
end

local function tell(kind, id, sequence, time, progress, rows)
  redis.call('RPUSH', 'exporter:outbox',
    table.concat({kind, int(time), sequence, progress, rows, id}, ' '))
  wake_senders()
end

-- Puts an event into the outbox, if somebody is to hear of it. It is called in the script that makes
-- the change, after it: whoever is told finds that state or a later one, and no change is told
-- twice or lost. Of a deleted export nothing is told, and nothing of a partition.
local function emit(id, kind, time)
  local fields = redis.call('HMGET', record(id), 'user', 'deleted', 'hook_events', 'progress', 'rows',
    'whole')
  if fields[1] and not fields[2] and not fields[6] and has_subscriber(fields[1], kind, fields[3]) then
    local sequence = redis.call('HINCRBY', record(id), 'sequence', 1)
    tell(kind, id, sequence, time, fields[4] or '0', fields[5] or '0')
  end
end

-- The same of progress: when there was any, and only now and then. Of a partition, its export's.
local function emit_progress(id, time)
  id = redis.call('HGET', record(id), 'whole') or id
  local fields = redis.call('HMGET', record(id), 'user', 'hook_events', 'progress', 'rows', 'told',
    'told_at')
  if not fields[1] or not has_subscriber(fields[1], 'export.progress', fields[2]) then
    return
  end
  local says = (fields[3] or '0') .. ' ' .. (fields[4] or '0')
  if says ~= (fields[5] or '0 0') and math.abs(time - tonumber(fields[6] or 0)) >= PROGRESS_EVERY then
    redis.call('HSET', record(id), 'told', says, 'told_at', int(time))
    emit(id, 'export.progress', time)
  end
end

-- Puts an export at the tail of its user's line, and the user in line if it was not. One who was
-- away starts at the present: absence earns nothing, and a second line costs what the first did.
local function enter(level, user, id, time)
  local since = time
  local line = ready(level, user)
  local tail = redis.call('ZREVRANGE', line, 0, 0, 'WITHSCORES')
  if tail[2] then
    -- Two may come in one microsecond, and a clock may be set back: the order stays.
    time = math.max(time, tonumber(tail[2]) + 1)
  else
    local start = math.max(tonumber(redis.call('ZSCORE', served(level), user) or 0), virtual(level))
    redis.call('ZREM', served(level), user)
    redis.call('ZADD', tenants(level), int(start), user)
  end
  if redis.call('ZADD', line, int(time), id) == 1 then
    redis.call('HINCRBY', 'exporter:lined', level, 1)
    if tonumber(level) < 9 then
      redis.call('ZADD', 'exporter:ageing', int(since), id)
    end
  end
end

local function line_up(level, user, id, time)
  enter(level, user, id, time)
  wake(level, id)
end

-- Takes an export out of line, and its user if that was the last one.
local function leave_queue(level, user, id)
  local line = ready(level, user)
  if redis.call('ZREM', line, id) == 1 then
    redis.call('ZREM', 'exporter:ageing', id)
    if redis.call('HINCRBY', 'exporter:lined', level, -1) <= 0 then
      redis.call('HDEL', 'exporter:lined', level)
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

local function make_ready(id, time)
  local fields = redis.call('HMGET', record(id), 'level', 'user')
  redis.call('HSET', record(id), 'phase', 'ready', 'updated_at', int(time))
  redis.call('HDEL', record(id), 'retry_at')
  line_up(fields[1], fields[2], id, time)
end

-- Makes up to `limit` waiting exports ready whose time has come; returns how many those were.
local function end_waits(time, limit)
  local due = redis.call('ZRANGEBYSCORE', 'exporter:waiting', '-inf', int(time), 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    redis.call('ZREM', 'exporter:waiting', id)
    if redis.call('HGET', record(id), 'state') == 'processing' then
      make_ready(id, time)
    end
  end
  return #due
end

-- An expired lease still holds until a sweep takes it away: only after that can another claim it.
local function holds(id, fence)
  local fields = redis.call('HMGET', record(id), 'state', 'fence')
  return fields[1] == 'processing' and fields[2] == fence
    and redis.call('ZSCORE', 'exporter:leases', id) ~= false
end

local function drop_lease(id)
  redis.call('ZREM', 'exporter:leases', id)
  local user = redis.call('HGET', record(id), 'user')
  if user and redis.call('HINCRBY', 'exporter:running', user, -1) <= 0 then
    redis.call('HDEL', 'exporter:running', user)
  end
end

-- Moves an export forward by what one of its partitions gained: a share of all, and rows.
local function gain(whole, share, rows, time)
  local fields = redis.call('HMGET', record(whole), 'state', 'progress')
  if fields[1] ~= 'processing' then
    return
  end
  local before = tonumber(fields[2] or 0)
  local after = math.min(0.99, before + share)
  if after > before then
    redis.call('HSET', record(whole), 'progress', string.format('%.17g', after))
  end
  if rows > 0 then
    redis.call('HINCRBY', record(whole), 'rows', int(rows))
  end
  redis.call('HSET', record(whole), 'updated_at', int(time))
end

-- Moves progress and rows forward, never back.
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
    gain(fields[3], (after - before) * tonumber(fields[4]), math.max(rows - most, 0), time)
  end
end

-- Renews a lease that is held, and returns what the worker is to do.
local function keep_lease(id, time, lease)
  redis.call('ZREM', 'exporter:leases', id)
  redis.call('ZADD', 'exporter:leases', int(time + lease), id)
  redis.call('HSET', record(id), 'updated_at', int(time))
  return redis.call('HEXISTS', record(id), 'cancel') == 1 and 'cancel' or 'continue'
end

-- What an export does while a worker has it: of one that was cut there is nothing to read.
local function phase_at_work(id)
  local fields = redis.call('HMGET', record(id), 'closing', 'partitions')
  return (fields[1] or tonumber(fields[2] or 0) > 0) and 'completing' or 'reading'
end

-- All fields of a record, those of a partition with the spec of its export.
local function all_fields(id)
  local fields = redis.call('HGETALL', record(id))
  local whole = redis.call('HGET', record(id), 'whole')
  local spec = whole and redis.call('HGET', record(whole), 'spec')
  if spec then
    table.insert(fields, 'spec')
    table.insert(fields, spec)
  end
  return fields
end

-- Ids of the partitions of an export that have not ended.
local function live_partitions(id)
  local live = {}
  for place = 0, tonumber(redis.call('HGET', record(id), 'partitions') or 0) - 1 do
    local one = id .. '/' .. place
    if redis.call('HGET', record(one), 'state') == 'processing' then
      table.insert(live, one)
    end
  end
  return live
end

-- Puts an export that waits for its partitions into line, if they have all ended.
local function reunite(id, time)
  local fields = redis.call('HMGET', record(id), 'state', 'phase')
  if fields[1] == 'processing' and fields[2] == 'reading'
    and not redis.call('ZSCORE', 'exporter:leases', id) and #live_partitions(id) == 0 then
    make_ready(id, time)
  end
end

-- Leaves nothing of the partitions of an export that has ended or is to be read as one.
local function forget_partitions(id)
  redis.call('ZREM', 'exporter:cut', id)
  local place = 0
  while redis.call('DEL', record(id .. '/' .. place)) == 1 do
    place = place + 1
  end
end

-- Tells the worker of a processing export to stop; one that no worker has is made ready for it.
-- If it is cut, so are its partitions.
local function ask_to_stop(id, time)
  local fields = redis.call('HMGET', record(id), 'phase', 'level')
  redis.call('ZREM', 'exporter:waiting', id)
  if redis.call('HSETNX', record(id), 'cancel', '1') == 1 then
    redis.call('HSET', record(id), 'updated_at', int(time))
  end
  if fields[1] == 'waiting' then
    make_ready(id, time)
  elseif fields[1] == 'ready' then
    wake(fields[2], id)
  end
  for _, one in ipairs(live_partitions(id)) do
    ask_to_stop(one, time)
  end
end

local function account(key)
  return 'exporter:account:' .. key
end

local function revoked(key)
  return redis.call('HEXISTS', 'exporter:keys', key) == 0
end

-- What a key has left to spend; nil if it is not metered. One that was revoked has nothing.
local function left_of(key)
  return revoked(key) and 0 or tonumber(redis.call('HGET', account(key), 'left'))
end

-- Charges an ended export for its rows, and gives the rest of what was reserved back. A second call
-- finds nothing left to settle. An export for which nothing was reserved costs nothing, but counts.
local function settle(id, rows)
  local fields = redis.call('HMGET', record(id), 'payer', 'reserved')
  local payer, reserved = fields[1], tonumber(fields[2] or 0)
  if not payer then
    return
  end
  redis.call('HDEL', record(id), 'payer', 'reserved')
  if reserved > 0 then
    rows = math.min(rows, reserved)
    count('credits_charged', rows)
    count('credits_given_back', reserved - rows)
  end
  if revoked(payer) then
    return
  end
  redis.call('HINCRBY', account(payer), 'used', rows)
  if reserved > 0 then
    redis.call('HINCRBY', account(payer), 'reserved', -reserved)
    if left_of(payer) then
      redis.call('HINCRBY', account(payer), 'left', reserved - rows)
    end
  end
end

-- Ends a queued export, which no worker knows.
local function withdraw(id, time)
  local fields = redis.call('HMGET', record(id), 'level', 'user')
  leave_queue(fields[1], fields[2], id)
  redis.call('HSET', record(id), 'state', 'canceled', 'phase', 'done', 'cancel', '1',
    'updated_at', int(time), 'completed_at', int(time))
  count('exports_canceled')
  settle(id, 0)
  emit(id, 'export.canceled', time)
end

-- Lets a deleted export that has ended go. For a minute its record says to whoever asks again, for
-- want of an answer, that it is done.
local function bury(id, time)
  redis.call('ZADD', 'exporter:deleted', int(time), id)
  redis.call('EXPIRE', record(id), 60)
end
