-- Lists of exports and their secondary indexes; put before common.lua in every script.
--
-- An export stands in the list of its user and in that of all users, and in one sorted set for each
-- of its values, such as `state:queued` or `source:board`, again for its user and for all users. Its
-- score is the same everywhere: about its creation time, made unique, so that a score is enough as a
-- cursor. The hash `indexed` has the values of each export, because a record that expires takes
-- nothing out of the sets: whoever meets its id there removes it.

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

-- Adds an export to all lists. `entry` has its user, its folded name and its values.
local function add_to_lists(id, entry, state, score)
  redis.call('HSET', PREFIX .. 'indexed', id, cjson.encode(entry))
  for_each_list(entry[1], function(user)
    redis.call('ZADD', list_of(user), int(score), id)
    redis.call('ZADD', index(user, 'state:' .. state), int(score), id)
    for at = 3, #entry do
      redis.call('ZADD', index(user, entry[at]), int(score), id)
    end
  end)
end

-- Returns a score for a new export: later than all others, even if the clock was set back.
local function next_score(user, time)
  local score = time
  for_each_list(user, function(one)
    local newest = redis.call('ZREVRANGE', list_of(one), 0, 0, 'WITHSCORES')[2]
    score = math.max(score, tonumber(newest or 0) + 1)
  end)
  return score
end

-- Moves an export to the index of its new state, and adds a value if there is one.
local function move_in_lists(id, state, value)
  local entry = indexed(id)
  local score = entry and redis.call('ZSCORE', list_of(entry[1]), id)
  if not score then
    return
  end
  for_each_list(entry[1], function(user)
    for _, one in ipairs(STATES) do
      if one ~= state then
        redis.call('ZREM', index(user, 'state:' .. one), id)
      end
    end
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

-- Removes an export from all lists; `user` is needed for an export that is not indexed.
local function remove_from_lists(id, user)
  local entry = indexed(id) or {user, ''}
  for_each_list(entry[1] or ALL_USERS, function(one)
    redis.call('ZREM', list_of(one), id)
    for _, state in ipairs(STATES) do
      redis.call('ZREM', index(one, 'state:' .. state), id)
    end
    for at = 3, #entry do
      redis.call('ZREM', index(one, entry[at]), id)
    end
  end)
  redis.call('HDEL', PREFIX .. 'indexed', id)
end

-- Indexes an export of a version without indexes, by what its record says.
local function index_old(id, user)
  if redis.call('HEXISTS', PREFIX .. 'indexed', id) == 1 then
    return false
  end
  local fields = redis.call('HMGET', record(id), 'spec', 'state', 'result')
  local score = redis.call('ZSCORE', list_of(user), id)
  if not fields[1] or not score then
    return false
  end
  local ok, spec = pcall(cjson.decode, fields[1])
  local entry = {user, ''}
  if ok and type(spec) == 'table' then
    table.insert(entry, 'source:' .. tostring(spec.source))
    table.insert(entry, 'format:' .. tostring(spec.format))
  end
  local outcome = fields[3] and string.match(fields[3], '"outcome":"(%l+)"')
  if outcome then
    table.insert(entry, 'outcome:' .. outcome)
  end
  add_to_lists(id, entry, fields[2] or 'failed', tonumber(score))
  return true
end
