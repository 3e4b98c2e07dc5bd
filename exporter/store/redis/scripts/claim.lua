-- claim(worker, nonce, lease, slots) -> {clean, fence, id, all fields of the record, of a partition
--   with the spec of its export}, or nil
--
-- The nonce is new for each claim that is meant, and the same when a client asks again because it
-- heard no answer: that gets the same answer, not a second export. A lease is in microseconds;
-- slots are the leases that one user may have at once, 0 for no bound.
local worker, nonce, lease, slots = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local DUE = 16
local USERS = 16
local AHEAD = 16

local answered = redis.call('GET', 'exporter:claim:' .. nonce)
if answered then
  local clean, id = string.match(answered, '^(%d) (.*)$')
  local fence = redis.call('HGET', record(id), 'fence')
  if fence and string.sub(fence, -#nonce) == nonce then
    return {clean, fence, id, all_fields(id)}
  end
  return false
end

-- The user's export ready longest that may run beside those running; one that somebody deleted by
-- hand is cleared away. It looks past a few that may not: they are of a key with another plan than
-- those behind them.
local function first(level, user, running)
  local place = 0
  while place < AHEAD do
    local id = redis.call('ZRANGE', ready(level, user), place, place)[1]
    if not id then
      return nil
    end
    local fields = redis.call('HMGET', record(id), 'state', 'concurrency')
    if fields[1] ~= 'queued' and fields[1] ~= 'processing' then
      leave_queue(level, user, id)
    elseif fields[2] and running >= tonumber(fields[2]) then
      place = place + 1
    else
      return id
    end
  end
end

local function best()
  for level = 9, 0, -1 do
    local from = 0
    repeat
      local users = redis.call('ZRANGE', tenants(level), from, from + USERS - 1)
      for _, user in ipairs(users) do
        local running = tonumber(redis.call('HGET', 'exporter:running', user) or 0)
        if slots == 0 or running < slots then
          local id = first(level, user, running)
          if id then
            return level, user, id
          end
        end
      end
      from = from + USERS
    until #users == 0
  end
end

local time = now()
end_waits(time, DUE)
local level, user, id = best()
if not id then
  return false
end

local start = tonumber(redis.call('ZSCORE', tenants(level), user))
leave_queue(level, user, id)
local asked = redis.call('HGET', record(id), 'asked')
if asked then
  redis.call('HDEL', record(id), 'asked')
  redis.call('HSET', record(id), 'level', asked)
end
-- A user passed over for its cap has a start in the past; it may not save that up.
start = math.max(start, virtual(level))
redis.call('HSET', 'exporter:virtual', level, int(start))
redis.call('ZREMRANGEBYSCORE', served(level), '-inf', int(start))
local in_line = redis.call('EXISTS', ready(level, user)) == 1
redis.call('ZADD', in_line and tenants(level) or served(level), int(start + 1), user)

redis.call('ZADD', 'exporter:leases', int(time + lease), id)
redis.call('HINCRBY', 'exporter:running', user, 1)
local fence = int(redis.call('HINCRBY', record(id), 'fences', 1)) .. '-' .. nonce
local clean = redis.call('HGET', record(id), 'clean') or '1'
local is_start = redis.call('HSETNX', record(id), 'started_at', int(time)) == 1
-- What it waited for stays to be read until a commit shows that the wait is over.
redis.call('HSET', record(id), 'state', 'processing',
  'phase', phase_at_work(id), 'worker_id', worker,
  'fence', fence, 'clean', '0', 'updated_at', int(time))
if is_start then
  emit(id, 'export.started', time)
end
count('slices_claimed')
if clean == '0' then
  count('takeovers')
end
redis.call('SET', 'exporter:claim:' .. nonce, clean .. ' ' .. id, 'EX', 60)
return {clean, fence, id, all_fields(id)}
