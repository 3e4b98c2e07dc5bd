-- trim_lists(users, again in microseconds)
--   -> {changes, number of lists looked at; 0 if none is due}
--
-- Makes lists and indexes agree with the records, for what processes of versions without indexes
-- have created, ended or deleted. Looks at the lists of up to `users` users, the longest waiting
-- first, and at that of all users; each list comes again after `again`. At most MAX_ENTRIES exports
-- are looked at, and the next call goes on after them.
local users, again = ARGV[1], tonumber(ARGV[2])
local MAX_ENTRIES = 250

local time = now()
local left, changes = MAX_ENTRIES, 0

-- Adds an export of a version without indexes to all lists, by what its record says. Its score is
-- that of its user's list, or the next that no other export has: cursors need unique scores.
local function index_old(id, user, spec, state, result)
  local score = tonumber(redis.call('ZSCORE', list_of(user), id))
  local function is_taken(list)
    local others = redis.call('ZRANGEBYSCORE', list, int(score), int(score), 'LIMIT', 0, 2)
    return #others > 1 or others[1] and others[1] ~= id
  end
  while is_taken(list_of(ALL_USERS)) or is_taken(list_of(user)) do
    score = score + 1
  end
  local ok, fields = pcall(cjson.decode, spec)
  local entry = {user, ''}
  if ok and type(fields) == 'table' then
    table.insert(entry, 'source:' .. tostring(fields.source))
    table.insert(entry, 'format:' .. tostring(fields.format))
  end
  local outcome = result and string.match(result, '"outcome":"(%l+)"')
  if outcome then
    table.insert(entry, 'outcome:' .. outcome)
  end
  add_to_lists(id, entry, cjson.encode(entry), state, score)
end

-- Corrects the state and the outcome of an export that a version without indexes has ended.
local function move_if_needed(id, entry, state, result)
  local outcome = result and string.match(result, '"outcome":"(%l+)"')
  local value = outcome and 'outcome:' .. outcome
  for at = 3, #entry do
    if entry[at] == value then
      value = nil
    end
  end
  if value or not redis.call('ZSCORE', index(entry[1], 'state:' .. state), id) then
    move_in_lists(id, state, state, value)
    return true
  end
end

-- Returns true if the export was not as its record says in the lists; now it is.
local function mend(id, user)
  local fields = redis.call('HMGET', record(id), 'state', 'deleted', 'result')
  local state, deleted, result = fields[1], fields[2], fields[3]
  if deleted or (not state and redis.call('EXISTS', record(id)) == 0) then
    remove_from_lists(id, user, state or 'finished')
    return true
  end
  local entry = indexed(id)
  local is_changed
  if entry then
    is_changed = user == ALL_USERS and move_if_needed(id, entry, state, result)
  elseif user ~= ALL_USERS then
    index_old(id, user, redis.call('HGET', record(id), 'spec') or '', state or 'failed', result)
    is_changed = true
  end
  if ENDED[state] and not redis.call('ZSCORE', PREFIX .. 'expiring', id) then
    local millis = redis.call('PTTL', record(id))
    if millis >= 0 then
      redis.call('ZADD', PREFIX .. 'expiring', int(time + millis * 1000), id)
    end
  end
  return is_changed
end

-- Looks at the next exports of a list; returns true at its end.
local function trim(user)
  local from = redis.call('HGET', PREFIX .. 'trimmed', user)
  -- The first write of the script: it only removes.
  redis.call('HDEL', PREFIX .. 'trimmed', user)
  local found = redis.call('ZRANGEBYSCORE', list_of(user), from and '(' .. from or '-inf', '+inf',
    'WITHSCORES', 'LIMIT', 0, left)
  for at = 1, #found, 2 do
    local ok, is_changed = pcall(mend, found[at], user)
    changes = changes + (ok and is_changed and 1 or 0)
  end
  left = left - #found / 2
  if left > 0 then
    return true
  end
  redis.call('HSET', PREFIX .. 'trimmed', user, found[#found])
end

local looked_at = 0
local due = redis.call('ZRANGEBYSCORE', PREFIX .. 'users', '-inf', int(time), 'LIMIT', 0, users)
for _, user in ipairs(due) do
  looked_at = looked_at + 1
  if not trim(user) then
    break
  end
  if redis.call('EXISTS', list_of(user)) == 0 then
    redis.call('ZREM', PREFIX .. 'users', user)
  else
    redis.call('ZADD', PREFIX .. 'users', int(time + again), user)
  end
end
if left > 0 and tonumber(redis.call('GET', PREFIX .. 'trim_all') or 0) <= time then
  if trim(ALL_USERS) then
    redis.call('SET', PREFIX .. 'trim_all', int(time + again))
  else
    looked_at = math.max(looked_at, 1)
  end
end
return {changes, looked_at}
