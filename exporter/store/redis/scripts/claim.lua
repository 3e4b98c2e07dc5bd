-- claim(worker, nonce, lease, slots)
--   -> {records set aside, clean, fence, id, all fields of the record}, for a partition with the
--      spec of its export; {records set aside} if no export was claimed
--
-- A record set aside is given by its id and the reason.
--
-- The nonce is new for each claim. A client that lost the answer repeats the call with the same
-- nonce and gets the same answer, not a second export. `lease` is in microseconds; `slots` is the
-- maximum number of leases of one user, 0 for no limit.
local worker, nonce, lease, slots = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local MAX_DUE = 16
local USERS_PER_READ = 16
local MAX_LOOKAHEAD = 16
local MAX_CLAIMS = 16
local ALL_LEVELS = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0}

local answered = redis.call('GET', PREFIX .. 'claim:' .. nonce)
if answered then
  local clean, id = string.match(answered, '^(%d) (.*)$')
  local fence = redis.call('HGET', record(id), 'fence')
  if fence and string.sub(fence, -#nonce) == nonce then
    return {aside, clean, fence, id, all_fields(id)}
  end
  return {aside}
end

local time = now()
end_waits(time, MAX_DUE)

-- Returns 'free', 'full' if the user has as many leases as the export's plan allows, or 'gone' if
-- the export cannot be claimed.
local function check(id, running)
  local fields = redis.call('HMGET', record(id), 'state', 'concurrency')
  if not is_live(id, fields[1]) or redis.call('ZSCORE', PREFIX .. 'leases', id) then
    return 'gone'
  end
  local concurrency = tonumber(fields[2] or 0)
  return (concurrency > 0 and running >= concurrency) and 'full' or 'free'
end

-- Returns the user's export that was ready first and is below its concurrency limit. An export at
-- its limit is skipped, because a later export may be of a key with another plan; MAX_LOOKAHEAD of
-- them are skipped at most. An entry whose record was deleted by hand or cannot be processed is
-- removed.
local function first_claimable(level, user, running)
  local place = 0
  while place < MAX_LOOKAHEAD do
    local id = redis.call('ZRANGE', ready(level, user), place, place)[1]
    if not id then
      return nil
    end
    local found = contain(id, time, function() return check(id, running) end)
    if found == 'free' then
      return id
    elseif found == 'full' then
      place = place + 1
    else
      leave_queue(level, user, id)
    end
  end
end

-- True if a user was served before waiting users of lower levels for as many slices as leases are
-- live, and one more: one slice of each busy worker, including this one.
local function has_jumped_enough(user)
  local jumps = tonumber(redis.call('HGET', PREFIX .. 'jumps', user) or 0)
  return jumps > 0 and jumps > redis.call('ZCARD', PREFIX .. 'leases')
end

-- Counts a claim at that level: as a jump of its user if another user waits at a lower level. A
-- claim that passes over no user starts the counts of all users again.
local function count_jump(level, user)
  for lower = level - 1, 0, -1 do
    for _, other in ipairs(redis.call('ZRANGE', tenants(lower), 0, 1)) do
      if other ~= user then
        redis.call('HINCRBY', PREFIX .. 'jumps', user, 1)
        return
      end
    end
  end
  redis.call('DEL', PREFIX .. 'jumps')
end

-- Returns the level, user and id of the export to claim next; nothing if there is none. With
-- `take_turns`, users who have jumped enough are skipped.
local function best_export(levels, take_turns)
  for _, level in ipairs(levels) do
    local from = 0
    repeat
      local users = redis.call('ZRANGE', tenants(level), from, from + USERS_PER_READ - 1)
      for _, user in ipairs(users) do
        local running = tonumber(redis.call('HGET', PREFIX .. 'running', user) or 0)
        if (slots == 0 or running < slots) and not (take_turns and has_jumped_enough(user)) then
          local id = first_claimable(level, user, running)
          if id then
            return level, user, id
          end
        end
      end
      from = from + USERS_PER_READ
    until #users == 0
  end
end

-- Returns the levels with ready exports, the most urgent first.
local function ready_levels()
  local levels, lined = {}, redis.call('HGETALL', PREFIX .. 'lined')
  for place = 1, #lined, 2 do
    table.insert(levels, tonumber(lined[place]))
  end
  table.sort(levels, function(one, other) return one > other end)
  return levels
end

local function claim(level, user, id)
  local start = tonumber(redis.call('ZSCORE', tenants(level), user))
  leave_queue(level, user, id)
  count_jump(level, user)
  local fields = redis.call('HMGET', record(id), 'asked', 'clean', 'whole')
  local asked, clean, parent = fields[1], fields[2] or '1', fields[3]
  if asked then
    redis.call('HDEL', record(id), 'asked')
    redis.call('HSET', record(id), 'level', asked)
  end
  -- A user skipped because of its concurrency limit must not accumulate credit: its virtual start
  -- time is raised to that of the level.
  start = math.max(start, virtual(level))
  redis.call('HSET', PREFIX .. 'virtual', level, int(start))
  redis.call('ZREMRANGEBYSCORE', served(level), '-inf', int(start))
  local in_line = redis.call('EXISTS', ready(level, user)) == 1
  redis.call('ZADD', in_line and tenants(level) or served(level), int(start + 1), user)

  redis.call('ZADD', PREFIX .. 'leases', int(time + lease), id)
  redis.call('HSET', PREFIX .. 'leased', id, user)
  redis.call('HINCRBY', PREFIX .. 'running', user, 1)
  local fence = int(redis.call('HINCRBY', record(id), 'fences', 1)) .. '-' .. nonce
  local is_start = redis.call('HSETNX', record(id), 'started_at', int(time)) == 1
  -- `error` keeps the reason of the latest wait until a commit shows progress.
  redis.call('HSET', record(id), 'state', 'processing',
    'phase', phase_at_work(id), 'worker_id', worker,
    'fence', fence, 'clean', '0', 'updated_at', int(time))
  if is_start then
    move_in_lists(id, 'queued', 'processing')
    emit(id, 'export.started', time)
  end
  if not parent then
    add_activity(id, time, is_start and 'started' or clean == '0' and 'takeover' or 'slice', worker)
  elseif clean == '0' then
    add_activity_of_partition(id, parent, time, 'takeover', worker)
  end
  count('slices_claimed')
  if clean == '0' then
    count('takeovers')
  end
  redis.call('SET', PREFIX .. 'claim:' .. nonce, clean .. ' ' .. id, 'EX', 60)
  return {aside, clean, fence, id, all_fields(id)}
end

for _ = 1, MAX_CLAIMS do
  local level, user, id = best_export(ready_levels(), true)
  if not id then
    level, user, id = best_export(ALL_LEVELS, false)
  end
  if not id then
    break
  end
  local claimed = contain(id, time, function() return claim(level, user, id) end)
  if claimed then
    return claimed
  end
end
return {aside}
