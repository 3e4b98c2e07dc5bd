-- create(id, user, level, spec, key or '', fingerprint, remember in ms, payer or '', reserved,
--        concurrency, hook_events or '', max_queued, max_kept, max_bytes,
--        until_ended '1' or '0', {user, folded name, values …} as JSON, digest of the caller's key or '', its value, metered '1' or '0',
--        {name, requests, window} of each rate limit in which the request is counted)
--   -> {windows, outcome, all fields, id}
--
-- The outcome is 'created'; 'replayed' with the record that the idempotency key created before;
-- 'reused' (key used with another fingerprint) or 'spent' (the key's export is deleted or expired),
-- both without fields; 'short', with the payer's remaining credits instead of fields; 'queued',
-- 'kept' or 'bytes', with the count by which the user would exceed that limit (0: no limit); or
-- 'full' if Redis has only the memory left that running exports need. A second call with the same
-- id creates nothing and returns the record. With until_ended '1', a key whose export has ended or
-- is deleted creates another export.
--
-- Before all of this, the outcome is 'changed' if the caller's API key is not stored with that
-- value, or is metered if it should not be or the reverse: nothing is done. Otherwise the request is
-- counted; `windows` are the answers of `acquire` for the rate limits. The outcome is 'limited' if
-- the last of them is full; the request is not counted in it and in the rate limits after it. A
-- second call with the same id is allowed in any case, so that its caller learns of the export.
local id, user, level, spec = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key, fingerprint, remember = ARGV[5], ARGV[6], ARGV[7]
local payer, reserved, concurrency = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local hook_events = ARGV[11]
local max_queued, max_kept, max_bytes = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local until_ended = ARGV[15] == '1'
local entry = ARGV[16]
local caller, caller_value, metered = ARGV[17], ARGV[18], tonumber(ARGV[19])
local is_new = redis.call('EXISTS', record(id)) == 0

if is_new and caller and caller ~= ''
  and (redis.call('GET', PREFIX .. 'key:' .. caller) ~= caller_value
    or redis.call('HEXISTS', account(string.sub(caller, 1, 12)), 'left') ~= metered) then
  return {{}, 'changed'}
end

-- Returns the used share of Redis's maxmemory; 0 without a maximum, nil if Redis refuses INFO.
local function used_share()
  local info = redis.pcall('INFO', 'memory')
  local used = type(info) == 'string' and tonumber(string.match(info, 'used_memory:(%d+)'))
  local most = used and tonumber(string.match(info, 'maxmemory:(%d+)'))
  return most and (most > 0 and used / most or 0)
end

local share
local time = now()
local roomy_micros = is_new and tonumber(redis.call('GET', PREFIX .. 'roomy') or 0) - time or 0
if roomy_micros > 0 and roomy_micros <= ROOMY_MICROS then
  share = 0
elseif is_new then
  share = used_share()
  if not share then
    -- A full Redis refuses this write, because it is the first. Removals of `acquire` are not.
    count('exports_created', 0)
  elseif share < ROOMY_SHARE then
    redis.call('SET', PREFIX .. 'roomy', int(time + ROOMY_MICROS))
  end
end
local windows = {}

local function answer(...)
  return {windows, ...}
end

for place = 20, #ARGV, 3 do
  local window = acquire(PREFIX .. 'rate:' .. ARGV[place], tonumber(ARGV[place + 1]),
    tonumber(ARGV[place + 2]))
  table.insert(windows, window)
  if window[1] == 0 then
    if is_new then
      return answer('limited')
    end
    window[1] = 1
  end
end

if key ~= '' then
  key = PREFIX .. 'idempotency:' .. key
  local known = redis.call('GET', key)
  if known then
    local before, first = string.match(known, '^(%S+) (.*)$')
    if before ~= fingerprint then
      return answer('reused')
    end
    if first ~= id then
      local fields = redis.call('HMGET', record(first), 'state', 'deleted')
      local gone = not fields[1] or fields[2]
      local ended = gone or (fields[1] ~= 'queued' and fields[1] ~= 'processing')
      if not (ended and until_ended) then
        if gone then
          return answer('spent')
        end
        count('exports_replayed')
        return answer('replayed', redis.call('HGETALL', record(first)), first)
      end
    end
  end
end

-- Corrects the counts of exports that a worker of a version without these counts has ended.
local function forget_ended(time)
  local live = redis.call('ZCOUNT', stored(user), '+inf', '+inf')
  local offset = time % math.max(1, live - MAX_FORGOTTEN)
  local members = redis.call('ZRANGEBYSCORE', stored(user), '+inf', '+inf',
    'LIMIT', int(offset), MAX_FORGOTTEN)
  for _, member in ipairs(members) do
    local one = string.match(member, ' (.*)$')
    local state = redis.call('HGET', record(one), 'state')
    if not state then
      forget_stored(user, member)
    elseif state ~= 'queued' and state ~= 'processing' then
      local left = redis.call('PTTL', record(one))
      redis.call('ZADD', stored(user), 'XX', int(time + math.max(left, 0) * 1000), member)
    end
  end
end

-- Number of the user's exports that have not ended, with the new one.
local live

-- Returns the limit of the user that one more record would exceed, and the count; else nothing.
local function exceeded()
  live = redis.call('ZCOUNT', stored(user), '+inf', '+inf') + 1
  if max_queued > 0 and live > max_queued then
    return 'queued', live
  end
  local kept = redis.call('ZCARD', stored(user)) + 1
  if max_kept > 0 and kept > max_kept then
    return 'kept', kept
  end
  local bytes = tonumber(redis.call('GET', stored_bytes(user)) or 0) + #spec
  if max_bytes > 0 and bytes > max_bytes then
    return 'bytes', bytes
  end
end

if is_new then
  if share and share > FULL_SHARE then
    return answer('full')
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', stored(user), '-inf', int(time),
    'LIMIT', 0, MAX_FORGOTTEN)) do
    forget_stored(user, member)
  end
  if exceeded() then
    forget_ended(time)
    local limit, amount = exceeded()
    if limit then
      return answer(limit, int(amount))
    end
  end
  local fields = {'spec', spec, 'user', user, 'level', level, 'stored_bytes', #spec,
    'state', 'queued', 'phase', 'ready', 'created_at', int(time), 'updated_at', int(time)}
  local function set(name, value)
    table.insert(fields, name)
    table.insert(fields, value)
  end
  if payer ~= '' then
    local left = credits_left(payer)
    if not left then
      reserved = 0
    elseif left < reserved then
      return answer('short', int(left))
    elseif reserved > 0 then
      redis.call('HINCRBY', account(payer), 'left', -reserved)
      redis.call('HINCRBY', account(payer), 'reserved', reserved)
      count('credits_reserved', reserved)
    end
    set('payer', payer)
    set('reserved', reserved)
  end
  if concurrency > 0 then
    set('concurrency', concurrency)
  end
  if hook_events ~= '' then
    set('hook_events', hook_events)
  end
  redis.call('HSET', record(id), unpack(fields))
  redis.call('ZADD', stored(user), '+inf', #spec .. ' ' .. id)
  redis.call('INCRBY', stored_bytes(user), #spec)
  if live == 1 then
    -- Without another live export the counts may have a TTL.
    redis.call('PERSIST', stored(user))
    redis.call('PERSIST', stored_bytes(user))
  end
  if key ~= '' then
    redis.call('SET', key, fingerprint .. ' ' .. id, 'PX', remember)
  end
  -- A record expires by its TTL, but its entries in the lists do not. Each create removes those of
  -- up to two expired records, so that the lists stay bounded however many exports are created.
  forget_expired(time, 2)
  local newest, newest_of_all = newest_score(user), newest_score(ALL_USERS)
  if newest == 0 then
    redis.call('ZADD', PREFIX .. 'users', 'NX', int(time), user)
  end
  if newest_of_all == 0 then
    redis.call('SETNX', PREFIX .. 'since', int(time))
  end
  -- Later than all others, even if the clock was set back.
  local score = math.max(time, newest + 1, newest_of_all + 1)
  add_to_lists(id, cjson.decode(entry), entry, 'queued', score)
  count('exports_created')
  enqueue_and_wake(level, user, id, time)
  if has_subscriber(user, 'export.queued', hook_events) then
    emit(id, 'export.queued', time)
  end
end
return answer('created', redis.call('HGETALL', record(id)), id)
