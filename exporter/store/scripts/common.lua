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
--   exporter:budget:{source}         string  when the next request to a source may start
--   exporter:claim:{nonce}           string  "{clean} {id}", the answer of a claim, for a minute
--   exporter:idempotency:{digest}    string  "{fingerprint} {id}", what a user's key created, for a day
--   exporter:since                   integer when the first export was created
--   exporter:walk                    string  where the last walk through the bucket stopped
--   exporter:counters                hash    what happened -> how often, since the first export
--
-- Fields of an export: spec, user, level, state, phase, created_at, updated_at; once they are
-- known progress, started_at, completed_at, worker_id, error, attempts, stalls, stalled_since,
-- retry_at, cancel ('1'), checkpoint, closing, result, file_expires_at; and for the scripts alone
-- fence (of the latest claim), fences (how many there were), clean ('0': its worker may still
-- write), pages and parts (the most ever committed), asked (its priority, while it is risen above
-- that), deleted ('1': its owner may not see it any more).
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
-- the first write of every script but create is one that only removes: exports under way can end,
-- and make room, while new ones are refused.

local WAKES = 10000

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

-- Ends a queued export, which no worker knows.
local function withdraw(id, time)
  local fields = redis.call('HMGET', record(id), 'level', 'user')
  step_out(fields[1], fields[2], id)
  redis.call('HSET', record(id), 'state', 'canceled', 'phase', 'done', 'cancel', '1',
    'updated_at', int(time), 'completed_at', int(time))
  count('exports_canceled')
end

-- Lets a deleted export that has ended go. For a minute its record says to whoever asks again, for
-- want of an answer, that it is done.
local function bury(id, time)
  redis.call('ZADD', 'exporter:deleted', int(time), id)
  redis.call('EXPIRE', record(id), 60)
end
