-- Visits the exports of a list that meet all conditions, in order, and calls visit(id, score, state)
-- until that returns true. The smallest set that all of them must be in is read; the others are asked
-- for each id. Ends after so many ids, so that no call holds Redis for long: `next` is then the score
-- after which the next call goes on; '' after the last export.
local CHUNK = 100

local function walk(user, oldest, from, since, until_, steps, states, words, values, visit)
  local wanted = {}
  for _, state in ipairs(states) do
    wanted[state] = true
  end
  local keys, smallest = {list_of(user)}, redis.call('ZCARD', list_of(user))
  local others = {}
  for _, value in ipairs(values) do
    local key = index(user, value)
    local size = redis.call('ZCARD', key)
    if size <= smallest then
      keys, smallest = {key}, size
    end
    table.insert(others, key)
  end
  if #states > 0 then
    local size, sets = 0, {}
    for _, state in ipairs(states) do
      local key = index(user, 'state:' .. state)
      size = size + redis.call('ZCARD', key)
      table.insert(sets, key)
    end
    if size <= smallest then
      keys = sets
    end
  end

  local function read()
    local found = {}
    for _, key in ipairs(keys) do
      local some
      if oldest then
        some = redis.call('ZRANGEBYSCORE', key, from == '' and since or '(' .. from, until_,
          'WITHSCORES', 'LIMIT', 0, CHUNK)
      else
        some = redis.call('ZREVRANGEBYSCORE', key, from == '' and until_ or '(' .. from, since,
          'WITHSCORES', 'LIMIT', 0, CHUNK)
      end
      for at = 1, #some, 2 do
        table.insert(found, {some[at], tonumber(some[at + 1])})
      end
    end
    if #keys > 1 then
      table.sort(found, function(one, other)
        if oldest then
          return one[2] < other[2]
        end
        return one[2] > other[2]
      end)
    end
    return found
  end

  local function meets(id, state)
    if #states > 0 and not wanted[state] then
      return false
    end
    for _, key in ipairs(others) do
      if not redis.call('ZSCORE', key, id) then
        return false
      end
    end
    if #words == 0 then
      return true
    end
    local name = ' ' .. ((indexed(id) or {})[2] or '')
    for _, word in ipairs(words) do
      if not string.find(name, ' ' .. word, 1, true) then
        return false
      end
    end
    return true
  end

  while true do
    local found = read()
    for at, one in ipairs(found) do
      if at > CHUNK then
        break
      end
      if steps == 0 then
        return from
      end
      steps = steps - 1
      local id, score = one[1], one[2]
      from = int(score)
      -- A damaged record is still shown.
      local is_sound, fields = pcall(redis.call, 'HMGET', record(id), 'state', 'deleted')
      fields = is_sound and {fields[1] or '', fields[2]} or {''}
      if fields[1] == '' and redis.call('EXISTS', record(id)) == 0 then
        remove_from_lists(id, user, 'finished')
      elseif fields[2] ~= '1' and meets(id, fields[1]) and visit(id, score, fields[1]) then
        return from
      elseif is_sound and #states > 0 and not wanted[fields[1]] and fields[1] ~= '' then
        -- A process of a version without indexes has changed the state.
        pcall(move_in_lists, id, fields[1], fields[1])
      end
    end
    if #found == 0 then
      return ''
    end
  end
end
