-- Lists of exports and their secondary indexes; put before common.lua.
--
-- An export stands in the list of its user and in that of all users, and in one sorted set for each
-- of its values, such as `state:queued` or `source:board`, again for its user and for all users. Its
-- score is the same everywhere: about its creation time, made unique, so that a score is enough as a
-- cursor. The hash `indexed` has the values of each export, because a record that expires takes
-- nothing out of the sets: forget_expired does.

local PREFIX = KEYS[1]
local ALL_USERS = ''
local STATES = {'queued', 'processing', 'finished', 'failed', 'canceled'}

local function int(number)
  return string.format('%.0f', number)
end

local function record(id)
  return PREFIX .. 'export:' .. id
end

local function list_of(user)
  return user == ALL_USERS and PREFIX .. 'all' or PREFIX .. 'user:' .. user
end

-- The length keeps apart a user whose id has a colon.
local function index(user, value)
  return PREFIX .. 'index:' .. #user .. ':' .. user .. ':' .. value
end

-- Returns the user, the folded name and the values of an export; nil if it is not indexed.
local function indexed(id)
  local entry = redis.call('HGET', PREFIX .. 'indexed', id)
  return entry and cjson.decode(entry)
end

local function for_each_list(user, step)
  step(user)
  step(ALL_USERS)
end

-- Adds an export to all lists. `entry` has its user, its folded name and its values; `text` is the
-- same as JSON.
local function add_to_lists(id, entry, text, state, score)
  redis.call('HSET', PREFIX .. 'indexed', id, text)
  score = int(score)
  for_each_list(entry[1], function(user)
    redis.call('ZADD', list_of(user), score, id)
    redis.call('ZADD', index(user, 'state:' .. state), score, id)
    for at = 3, #entry do
      redis.call('ZADD', index(user, entry[at]), score, id)
    end
  end)
end

-- Returns the highest score of a list; 0 if the list is empty.
local function newest_score(user)
  return tonumber(redis.call('ZREVRANGE', list_of(user), 0, 0, 'WITHSCORES')[2] or 0)
end

-- Removes an export from the index of its state, which is probably `state`.
local function leave_state(user, id, state)
  if redis.call('ZREM', index(user, 'state:' .. state), id) == 1 then
    return
  end
  for _, one in ipairs(STATES) do
    if one ~= state and redis.call('ZREM', index(user, 'state:' .. one), id) == 1 then
      return
    end
  end
end

-- Moves an export from the index of a state, which is probably `before`, to that of another, and
-- adds a value if there is one.
local function move_in_lists(id, before, state, value)
  local entry = indexed(id)
  local score = entry and redis.call('ZSCORE', list_of(entry[1]), id)
  if not score then
    return
  end
  for_each_list(entry[1], function(user)
    leave_state(user, id, before)
    redis.call('ZADD', index(user, 'state:' .. state), score, id)
    if value then
      redis.call('ZADD', index(user, value), score, id)
    end
  end)
  if value then
    table.insert(entry, value)
    redis.call('HSET', PREFIX .. 'indexed', id, cjson.encode(entry))
  end
end

-- Removes an export from all lists; its state is probably `state`, and `user` is needed for an
-- export that is not indexed.
local function remove_from_lists(id, user, state)
  local entry = indexed(id) or {user, ''}
  for_each_list(entry[1] or ALL_USERS, function(one)
    redis.call('ZREM', list_of(one), id)
    leave_state(one, id, state)
    for at = 3, #entry do
      redis.call('ZREM', index(one, entry[at]), id)
    end
  end)
  redis.call('HDEL', PREFIX .. 'indexed', id)
  redis.call('ZREM', PREFIX .. 'expiring', id)
end

-- Removes exports whose records have expired from all lists, at most `limit`. Returns the number of
-- exports that it looked at.
local function forget_expired(time, limit)
  local due = redis.call('ZRANGEBYSCORE', PREFIX .. 'expiring', '-inf', int(time), 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    redis.call('ZREM', PREFIX .. 'expiring', id)
    local left = redis.call('PTTL', record(id))
    if left == -2 then
      remove_from_lists(id, nil, 'finished')
    elseif left >= 0 then
      redis.call('ZADD', PREFIX .. 'expiring', int(time + (left + 1) * 1000), id)
    end
  end
  return #due
end
