-- Stands between the common.lua of all scripts and each script of webhooks.
--
-- Fields of an endpoint: user, url, events, secrets (a line "{until} {secret}" for each, the one in
-- force first with until 0), own ('1' or '0'), ordered ('1'), download ('1'), description,
-- created_at; once they are known disabled_at, disabled_because, failing_since, failed_at (the
-- latest failure), warned ('1': endpoint.failing was emitted), sequence (of its own events); and to
-- share the senders out served_at (the latest claim), rest_until and slow ('1': its latest try
-- failed or took long).
--
-- Fields of a delivery: endpoint, user, export ('' if it tells of none), type, message, sequence,
-- body, state, tries, created_at; once they are known next_at, finished_at, gave_up (why it is
-- dead), attempts (one JSON a line), lost (tries in a row whose worker died), fence (of the latest
-- claim), superseded ('1': a later event made it pointless while it was on its way).
--
-- A try under way counts against its endpoint. What is claimed next is decided between endpoints
-- first: the one that waits longest since it was served, so that nobody's backlog is another's
-- delay. Those that fail or answer late have a lane of their own, so that the senders can keep some
-- of themselves free of them.

local AT_ONCE = 4
local FAST, SLOW = 'exporter:lane:fast', 'exporter:lane:slow'
local ATTEMPTS = 20
local DAY = 86400000000

local function endpoint(id)
  return 'exporter:endpoint:' .. id
end

local function registered(user)
  return 'exporter:registered:' .. user
end

local function delivery(id)
  return 'exporter:delivery:' .. id
end

local function due(address)
  return 'exporter:due:' .. address
end

local function order(address, export)
  return 'exporter:order:' .. address .. ':' .. export
end

local function latest(address)
  return 'exporter:progress:' .. address
end

-- Writes down which events any of the user's registered endpoints wants to hear.
local function subscribe(user)
  local wanted, heard_already = ' ', {}
  for _, id in ipairs(redis.call('SMEMBERS', registered(user))) do
    local fields = redis.call('HMGET', endpoint(id), 'events', 'disabled_at')
    if fields[1] and not fields[2] then
      for name in string.gmatch(fields[1], '%S+') do
        if not heard_already[name] then
          heard_already[name] = true
          wanted = wanted .. name .. ' '
        end
      end
    end
  end
  redis.call('HDEL', 'exporter:listeners', user)
  if wanted ~= ' ' then
    redis.call('HSET', 'exporter:listeners', user, wanted)
  end
end

-- Puts an endpoint where its earliest due delivery belongs; nowhere while it has enough to do.
local function schedule_endpoint(address)
  redis.call('ZREM', FAST, address)
  redis.call('ZREM', SLOW, address)
  local first = redis.call('ZRANGE', due(address), 0, 0, 'WITHSCORES')
  if not first[1] then
    return
  end
  local fields = redis.call('HMGET', endpoint(address), 'slow', 'failing_since', 'served_at',
    'rest_until')
  local at_once = fields[2] and 1 or AT_ONCE
  if tonumber(redis.call('HGET', 'exporter:delivering', address) or 0) >= at_once then
    return
  end
  local from = math.max(tonumber(first[2]), tonumber(fields[3] or 0), tonumber(fields[4] or 0))
  redis.call('ZADD', fields[1] and SLOW or FAST, int(from), address)
end

-- Whether nothing that its endpoint is to hear earlier is in front of a delivery.
local function is_first(address, export, id)
  local first = redis.call('ZRANGE', order(address, export), 0, 0)[1]
  return not first or first == id or not redis.call('ZSCORE', order(address, export), id)
end

-- Makes a delivery pending from that time on.
local function line_up_delivery(id, at)
  local fields = redis.call('HMGET', delivery(id), 'endpoint', 'export')
  redis.call('HSET', delivery(id), 'state', 'pending', 'next_at', int(at))
  if is_first(fields[1], fields[2], id) then
    redis.call('ZADD', due(fields[1]), int(at), id)
  end
  schedule_endpoint(fields[1])
end

-- The same for one that may be new to its ordered endpoint's line, or comes back to it.
local function join(id, at)
  local fields = redis.call('HMGET', delivery(id), 'endpoint', 'export', 'sequence')
  local address, export, sequence = fields[1], fields[2], fields[3]
  if export ~= '' and redis.call('HGET', endpoint(address), 'ordered') == '1' then
    local line = order(address, export)
    local first = redis.call('ZRANGE', line, 0, 0)[1]
    redis.call('ZADD', line, sequence, id)
    if first and first ~= id and redis.call('ZRANGE', line, 0, 0)[1] == id then
      redis.call('ZREM', due(address), first)
    end
  end
  line_up_delivery(id, at)
end

-- Takes a delivery out of line; the next one of an ordered export steps forward.
local function leave(id, address, export)
  redis.call('ZREM', due(address), id)
  if redis.call('ZREM', order(address, export), id) == 1 then
    local next_one = redis.call('ZRANGE', order(address, export), 0, 0)[1]
    local fields = next_one and redis.call('HMGET', delivery(next_one), 'state', 'next_at')
    if fields and fields[1] == 'pending' then
      redis.call('ZADD', due(address), fields[2], next_one)
    end
  end
  schedule_endpoint(address)
end

-- No two share a place in a list, so a place is all that a page needs to go on from.
local function list(key, id, time)
  local newest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  redis.call('ZADD', key, int(math.max(time, tonumber(newest[2] or 0) + 1)), id)
end

local function finish_delivery(id, state, time, keep, gave_up)
  local fields = redis.call('HMGET', delivery(id), 'endpoint', 'export', 'user')
  leave(id, fields[1], fields[2])
  redis.call('HDEL', delivery(id), 'next_at')
  redis.call('HSET', delivery(id), 'state', state, 'finished_at', int(time))
  redis.call('PEXPIRE', delivery(id), keep)
  count('webhooks_' .. state)
  if state == 'dead' then
    redis.call('HSET', delivery(id), 'gave_up', gave_up)
    local key = 'exporter:dead:' .. fields[3]
    redis.call('ZREMRANGEBYSCORE', key, '-inf', int(time - keep * 1000))
    list(key, id, time)
    redis.call('PEXPIRE', key, keep)
  end
end

-- Removes every trace of a delivery.
local function forget_delivery(id)
  local fields = redis.call('HMGET', delivery(id), 'endpoint', 'export', 'user')
  leave(id, fields[1], fields[2])
  redis.call('ZREM', 'exporter:deliveries:' .. fields[1], id)
  redis.call('ZREM', 'exporter:told:' .. fields[2], id)
  redis.call('ZREM', 'exporter:dead:' .. fields[3], id)
  redis.call('DEL', delivery(id))
end

-- Of progress only the latest is of use, and none once the export is over: an earlier one that was
-- not delivered goes.
local function supersede(address, export, id, over)
  local before = redis.call('HGET', latest(address), export)
  local state = before and redis.call('HGET', delivery(before), 'state')
  if state == 'delivering' then
    redis.call('HSET', delivery(before), 'superseded', '1')
  elseif state and (state == 'pending' or not over) then
    forget_delivery(before)
  end
  if over then
    redis.call('HDEL', latest(address), export)
  else
    redis.call('HSET', latest(address), export, id)
  end
end

local function make_delivery(id, address, user, export, kind, message, sequence, body, time, keep)
  redis.call('HSET', delivery(id), 'endpoint', address, 'user', user, 'export', export,
    'type', kind, 'message', message, 'sequence', sequence, 'body', body, 'tries', '0',
    'created_at', int(time))
  local key = 'exporter:deliveries:' .. address
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(time - keep * 1000 - 14 * DAY))
  list(key, id, time)
  redis.call('PEXPIRE', key, int(keep + 14 * DAY / 1000))
  if export ~= '' then
    list('exporter:told:' .. export, id, time)
    redis.call('PEXPIRE', 'exporter:told:' .. export, int(keep + 14 * DAY / 1000))
  end
  join(id, time)
end

-- Ends a try: it counts no more against its endpoint.
local function let_go(id, address)
  redis.call('ZREM', 'exporter:delivery_leases', id)
  if redis.call('HINCRBY', 'exporter:delivering', address, -1) <= 0 then
    redis.call('HDEL', 'exporter:delivering', address)
  end
end

local function emit_of_endpoint(id, kind, time)
  local user = redis.call('HGET', endpoint(id), 'user')
  if has_subscriber(user, kind) then
    append_event(kind, id, redis.call('HINCRBY', endpoint(id), 'sequence', 1), time, '0', '0')
  end
end

local function disable(id, because, time)
  local fields = redis.call('HMGET', endpoint(id), 'user', 'disabled_at')
  if fields[1] and not fields[2] then
    redis.call('HDEL', endpoint(id), 'warned')
    redis.call('HSET', endpoint(id), 'disabled_at', int(time), 'disabled_because', because)
    subscribe(fields[1])
    if because ~= 'owner' then
      emit_of_endpoint(id, 'endpoint.disabled', time)
    end
    return true
  end
  return false
end

local function enable(id)
  redis.call('HDEL', endpoint(id), 'disabled_at', 'disabled_because', 'failing_since', 'failed_at',
    'warned', 'slow', 'rest_until')
  subscribe(redis.call('HGET', endpoint(id), 'user'))
  schedule_endpoint(id)
end
