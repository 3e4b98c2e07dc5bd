-- Stands before every script. The names and shapes of all keys:
--
--   exporter:export:{id}             hash    one export, its fields below
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
-- the first write of every script but create, charge, grant, and those that make an endpoint, a
-- secret or a test, is one that only removes: exports under way can end, and make room, and what
-- they tell goes out, while new ones are refused.

local WAKES = 10000
local PROGRESS_EVERY = 10000000

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
local function ring()
  if redis.call('EXISTS', 'exporter:ring') == 0 then
    redis.call('LPUSH', 'exporter:ring', '1')
  end
end

-- Whether anybody wants to hear of events of that kind, of one user's exports.
local function heard(user, kind, of_this_one)
  local wanted = (redis.call('HGET', 'exporter:listeners', user) or '') .. (of_this_one or '')
  return string.find(wanted, ' ' .. kind .. ' ', 1, true) ~= nil
end

local function tell(kind, id, sequence, time, progress, rows)
  redis.call('RPUSH', 'exporter:outbox',
    table.concat({kind, int(time), sequence, progress, rows, id}, ' '))
  ring()
end

-- Puts an event into the outbox, if somebody is to hear of it. It is called in the script that makes
-- the change, after it: whoever is told finds that state or a later one, and no change is told
-- twice or lost. Of a deleted export nothing is told.
local function emit(id, kind, time)
  local fields = redis.call('HMGET', record(id), 'user', 'deleted', 'hook_events', 'progress', 'rows')
  if fields[1] and not fields[2] and heard(fields[1], kind, fields[3]) then
    local sequence = redis.call('HINCRBY', record(id), 'sequence', 1)
    tell(kind, id, sequence, time, fields[4] or '0', fields[5] or '0')
  end
end

-- The same of progress: when there was any, and only now and then.
local function emit_progress(id, time)
  local fields = redis.call('HMGET', record(id), 'user', 'hook_events', 'progress', 'rows', 'told',
    'told_at')
  if not heard(fields[1], 'export.progress', fields[2]) then
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
local function step_out(level, user, id)
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

-- Renews a lease that is held, moves progress forward, and returns what the worker is to do.
local function keep_lease(id, time, lease, progress)
  redis.call('ZREM', 'exporter:leases', id)
  redis.call('ZADD', 'exporter:leases', int(time + lease), id)
  redis.call('HSET', record(id), 'updated_at', int(time))
  local before = tonumber(redis.call('HGET', record(id), 'progress') or 0)
  local after = tonumber(progress)
  if after and before < after and after < 1 then
    redis.call('HSET', record(id), 'progress', progress)
  end
  return redis.call('HEXISTS', record(id), 'cancel') == 1 and 'cancel' or 'continue'
end

-- Tells the worker of a processing export to stop; one that no worker has is made ready for it.
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
  step_out(fields[1], fields[2], id)
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
