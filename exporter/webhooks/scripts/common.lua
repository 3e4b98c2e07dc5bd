-- Keys, fields and functions that all webhook scripts share.
--
-- The loader places this file after the common.lua of exporter/store/redis and before each script.
--
-- Fields of an endpoint, always set: user, url, events, secrets (one line "{until} {secret}" for
-- each secret; the current secret is first and has until 0), own ('1': registered by its user, '0':
-- made for the webhook_url of exports), created_at.
-- Set for registered endpoints: description; and if true: ordered ('1'), download ('1').
-- Set for listeners: listener, the seconds without a take after which the listener is deleted; url is
-- ''. No sender claims deliveries of a listener, not even one of an earlier version: the number of
-- its attempts in flight begins at LISTENER_IN_FLIGHT, so it is never scheduled.
-- Set once known: disabled_at, disabled_because, failing_since, failed_at (the latest failure),
-- warned ('1': endpoint.failing was emitted), sequence (number of the endpoint's own events).
-- For scheduling: served_at (the latest claim), rest_until, slow ('1': the latest attempt failed or
-- was slow).
--
-- Fields of a delivery, always set: endpoint, user, export ('' if the event is not about an
-- export), type, message, sequence, body, state, tries, created_at.
-- Set once known: next_at, finished_at, gave_up (reason for which it is dead), attempts (one JSON
-- object per line), lost (consecutive attempts with a lost worker), fence (nonce of the latest
-- claim), superseded ('1': a later event made the delivery obsolete during its attempt).
--
-- Scheduling: a claim first chooses the user who has waited longest since a turn, then that user's
-- endpoint that has waited longest, so that neither the backlog of a user nor that of an endpoint
-- delays others. Each user and each endpoint has an in-flight limit. Endpoints whose latest attempt
-- failed or was slow are in the slow lane, so that the workers can reserve threads for the fast
-- lane.

local MAX_IN_FLIGHT = 4
local LISTENER_IN_FLIGHT = 1000000000
-- Deliveries of an expired listener that one script drops; the next script continues.
local MAX_DROPPED = 200
local KNOWN_STATES = {pending = true, delivering = true, delivered = true, dead = true}
local SPEEDS = {'fast', 'slow'}
local MAX_STORED_ATTEMPTS = 20
local MAX_ATTEMPT_BYTES = 8192
local DAY = 86400000000
-- Unsuccessful tries to read an event, after which it is dropped; 85 minutes after the first one.
local MAX_EVENT_TRIES = 10
-- Time between the first two of these tries; each later wait is twice as long.
local EVENT_WAIT_MICROS = 10000000

local function endpoint(id)
  return PREFIX .. 'endpoint:' .. id
end

local function registered(user)
  return PREFIX .. 'registered:' .. user
end

local function delivery(id)
  return PREFIX .. 'delivery:' .. id
end

local function due(endpoint_id)
  return PREFIX .. 'due:' .. endpoint_id
end

local function order(endpoint_id, export)
  return PREFIX .. 'order:' .. endpoint_id .. ':' .. export
end

local function latest_progress(endpoint_id)
  return PREFIX .. 'progress:' .. endpoint_id
end

-- Users with scheduled endpoints of that speed, by the time of their next turn.
local function turns(speed)
  return PREFIX .. 'turns:' .. speed
end

-- A user's scheduled endpoints of that speed, by the time from which they can be served.
local function lane(speed, user)
  return PREFIX .. 'lane:' .. speed .. ':' .. user
end

-- A user's attempts in flight, by the expiry of their leases.
local function attempts_of(user)
  return PREFIX .. 'attempts:' .. user
end

-- Time of a user's latest turn. It is only compared with times of due deliveries, so it may expire.
local function latest_turn(user)
  return PREFIX .. 'turn:' .. user
end

-- All listeners, by the time at which they are deleted.
local LISTENING = PREFIX .. 'listening'

-- Returns the kind, the sequence number and the subject of an event; nothing for another entry.
local function parse_event(entry)
  return string.match(entry, '^(%S+) %S+ (%S+) %S+ %S+ (.*)$')
end

-- Returns the id of the message about an event; nil for an entry that is no event.
local function message_of(entry)
  local _, sequence, subject = parse_event(entry)
  return subject and 'msg_' .. subject .. '_' .. sequence
end

-- A user's deliveries, by the time at which they were created.
local function kept(user)
  return PREFIX .. 'kept_deliveries:' .. user
end

-- Returns a stored number; 0 if it is missing or damaged.
local function number(value)
  local found = tonumber(value)
  return found and math.abs(found) < 2 ^ 53 and found or 0
end

-- Returns the endpoint, the subject and the user of a delivery, without the fields that repeat them:
-- a delivery whose fields are damaged can thus be removed from every queue. The user is that of the
-- endpoint; nil if both are unknown.
local function place_of(id)
  local message, endpoint_id = string.match(id, '^(.*)%.(.-)$')
  local subject = string.match(message or '', '^msg_(.*)_%d+$') or ''
  endpoint_id = endpoint_id or redis.call('HGET', delivery(id), 'endpoint') or ''
  local user = redis.call('HGET', endpoint(endpoint_id), 'user')
    or redis.call('HGET', delivery(id), 'user') or nil
  return endpoint_id, subject, user
end

-- Stores the union of the event types of the user's enabled registered endpoints.
local function subscribe(user)
  local wanted, seen = ' ', {}
  for _, id in ipairs(redis.call('SMEMBERS', registered(user))) do
    local fields = redis.call('HMGET', endpoint(id), 'events', 'disabled_at')
    if fields[1] and not fields[2] then
      for name in string.gmatch(fields[1], '%S+') do
        if not seen[name] then
          seen[name] = true
          wanted = wanted .. name .. ' '
        end
      end
    end
  end
  redis.call('HDEL', PREFIX .. 'listeners', user)
  if wanted ~= ' ' then
    redis.call('HSET', PREFIX .. 'listeners', user, wanted)
  end
end

-- (Re)schedules a user by the earliest scheduled endpoint, but not before the user's latest turn.
local function schedule_user(user)
  local served = tonumber(redis.call('GET', latest_turn(user)) or 0)
  for _, speed in ipairs(SPEEDS) do
    redis.call('ZREM', turns(speed), user)
    local first = redis.call('ZRANGE', lane(speed, user), 0, 0, 'WITHSCORES')
    if first[1] then
      redis.call('ZADD', turns(speed), int(math.max(tonumber(first[2]), served)), user)
    end
  end
end

-- (Re)schedules an endpoint by its earliest due delivery. Not scheduled while its in-flight limit
-- is reached. The limit is 1 during a run of consecutive failures.
local function schedule_endpoint(endpoint_id, user)
  for _, speed in ipairs(SPEEDS) do
    redis.call('ZREM', lane(speed, user), endpoint_id)
  end
  local first = redis.call('ZRANGE', due(endpoint_id), 0, 0, 'WITHSCORES')
  if first[1] then
    local fields = redis.call('HMGET', endpoint(endpoint_id), 'slow', 'failing_since', 'served_at',
      'rest_until')
    local limit = fields[2] and 1 or MAX_IN_FLIGHT
    if tonumber(redis.call('HGET', PREFIX .. 'delivering', endpoint_id) or 0) < limit then
      local from = math.max(tonumber(first[2]), number(fields[3]), number(fields[4]))
      redis.call('ZADD', lane(fields[1] and 'slow' or 'fast', user), int(from), endpoint_id)
    end
  end
  schedule_user(user)
end

-- True if no earlier delivery of the same export blocks this one; always true if the endpoint is
-- not ordered.
local function is_first_in_order(endpoint_id, export, id)
  local first = redis.call('ZRANGE', order(endpoint_id, export), 0, 0)[1]
  return not first or first == id or not redis.call('ZSCORE', order(endpoint_id, export), id)
end

-- Makes a delivery pending, with its next attempt at that time.
local function make_delivery_pending(id, at)
  local endpoint_id, export, user = place_of(id)
  redis.call('HSET', delivery(id), 'state', 'pending', 'next_at', int(at))
  if is_first_in_order(endpoint_id, export, id) then
    redis.call('ZADD', due(endpoint_id), int(at), id)
  end
  schedule_endpoint(endpoint_id, user)
end

-- Makes a delivery pending as make_delivery_pending does, and adds it to the order of its export if
-- the endpoint is ordered. For new deliveries, and for finished ones that are sent again.
local function enqueue_delivery(id, at)
  local fields = redis.call('HMGET', delivery(id), 'endpoint', 'export', 'sequence')
  local endpoint_id, export, sequence = fields[1], fields[2], fields[3]
  if export ~= '' and redis.call('HGET', endpoint(endpoint_id), 'ordered') == '1' then
    local line = order(endpoint_id, export)
    local first = redis.call('ZRANGE', line, 0, 0)[1]
    redis.call('ZADD', line, sequence, id)
    if first and first ~= id and redis.call('ZRANGE', line, 0, 0)[1] == id then
      redis.call('ZREM', due(endpoint_id), first)
    end
  end
  make_delivery_pending(id, at)
end

-- Removes a delivery from the queue. At an ordered endpoint, the next delivery of the export is
-- queued if it is pending; one that is neither pending nor under way does not hold up the others.
local function dequeue_delivery(id)
  local endpoint_id, export, user = place_of(id)
  local line = order(endpoint_id, export)
  redis.call('ZREM', due(endpoint_id), id)
  if redis.call('ZREM', line, id) == 1 then
    local next_id = redis.call('ZRANGE', line, 0, 0)[1]
    while next_id do
      local fields = redis.call('HMGET', delivery(next_id), 'state', 'next_at')
      if fields[1] == 'pending' then
        redis.call('ZADD', due(endpoint_id), int(number(fields[2])), next_id)
      end
      if fields[1] == 'pending' or fields[1] == 'delivering' then
        break
      end
      redis.call('ZREM', line, next_id)
      next_id = redis.call('ZRANGE', line, 0, 0)[1]
    end
  end
  if user then
    schedule_endpoint(endpoint_id, user)
  end
end

-- Adds a delivery to a list with a unique score, so that a score is sufficient as a page cursor
-- (keyset pagination).
local function add_to_list(key, id, time)
  local newest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  redis.call('ZADD', key, int(math.max(time, tonumber(newest[2] or 0) + 1)), id)
end

-- Moves a delivery to a final state and starts its retention. `keep` is in milliseconds.
local function finish_delivery(id, state, time, keep, gave_up)
  local _, _, user = place_of(id)
  dequeue_delivery(id)
  redis.call('HDEL', delivery(id), 'next_at')
  redis.call('HSET', delivery(id), 'state', state, 'finished_at', int(time))
  redis.call('PEXPIRE', delivery(id), keep)
  count('webhooks_' .. state)
  if state == 'dead' then
    redis.call('HSET', delivery(id), 'gave_up', gave_up)
    local key = PREFIX .. 'dead:' .. (user or '')
    redis.call('ZREMRANGEBYSCORE', key, '-inf', int(time - keep * 1000))
    add_to_list(key, id, time)
    redis.call('PEXPIRE', key, keep)
  end
end

-- Deletes a delivery and its entries in all lists.
local function forget_delivery(id)
  local endpoint_id, subject, user = place_of(id)
  dequeue_delivery(id)
  redis.call('ZREM', PREFIX .. 'deliveries:' .. endpoint_id, id)
  redis.call('ZREM', PREFIX .. 'told:' .. subject, id)
  redis.call('ZREM', PREFIX .. 'dead:' .. (user or ''), id)
  redis.call('ZREM', kept(user or ''), id)
  redis.call('DEL', delivery(id))
end

-- Deletes the previous progress delivery of an export if a newer event makes it obsolete.
--
-- Only the latest progress is useful, and none after the export has ended (`over`). An attempt that
-- is running is only marked as superseded. After the end, a progress delivery that is already
-- delivered or dead is kept.
local function supersede(endpoint_id, export, id, over)
  local before = redis.call('HGET', latest_progress(endpoint_id), export)
  local state = before and redis.call('HGET', delivery(before), 'state')
  if state == 'delivering' then
    redis.call('HSET', delivery(before), 'superseded', '1')
  elseif state and (state == 'pending' or not over) then
    forget_delivery(before)
  end
  if over then
    redis.call('HDEL', latest_progress(endpoint_id), export)
  else
    redis.call('HSET', latest_progress(endpoint_id), export, id)
  end
end

-- Deletes the oldest deliveries of a user above `most`, but none whose attempt is running.
local function forget_oldest(user, most, time)
  local surplus = redis.call('ZCARD', kept(user)) - most
  for _, id in ipairs(redis.call('ZRANGE', kept(user), 0, math.min(surplus, MAX_FORGOTTEN) - 1)) do
    local state = redis.call('HGET', delivery(id), 'state')
    if state == 'delivering' then
      redis.call('ZADD', kept(user), int(time), id)
    elseif state then
      forget_delivery(id)
    else
      redis.call('ZREM', kept(user), id)
    end
  end
end

-- Creates a pending delivery, adds it to its lists, and queues it for `time`.
local function make_delivery(id, endpoint_id, user, export, kind, message, sequence, body, time,
    keep, most)
  redis.call('HSET', delivery(id), 'endpoint', endpoint_id, 'user', user, 'export', export,
    'type', kind, 'message', message, 'sequence', sequence, 'body', body, 'tries', '0',
    'created_at', int(time))
  local key = PREFIX .. 'deliveries:' .. endpoint_id
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(time - keep * 1000 - 14 * DAY))
  add_to_list(key, id, time)
  redis.call('PEXPIRE', key, int(keep + 14 * DAY / 1000))
  if export ~= '' then
    add_to_list(PREFIX .. 'told:' .. export, id, time)
    redis.call('PEXPIRE', PREFIX .. 'told:' .. export, int(keep + 14 * DAY / 1000))
  end
  redis.call('ZADD', kept(user), int(time), id)
  redis.call('PEXPIRE', kept(user), int(keep + 14 * DAY / 1000))
  if redis.call('ZCARD', kept(user)) > most then
    forget_oldest(user, most, time)
  end
  enqueue_delivery(id, time)
end

-- Starts an attempt at a delivery with that lease.
local function begin_attempt(id, endpoint_id, nonce, until_then)
  redis.call('ZREM', due(endpoint_id), id)
  redis.call('HDEL', delivery(id), 'next_at')
  redis.call('HSET', delivery(id), 'state', 'delivering', 'fence', nonce)
  redis.call('ZADD', PREFIX .. 'delivery_leases', int(until_then), id)
  redis.call('HINCRBY', PREFIX .. 'delivering', endpoint_id, 1)
  redis.call('SET', PREFIX .. 'claim:' .. nonce, id, 'EX', 60)
end

-- Releases the lease of an attempt, which then no longer counts for the in-flight limits of the
-- endpoint and the user.
local function release_delivery_lease(id)
  local endpoint_id, _, user = place_of(id)
  redis.call('ZREM', PREFIX .. 'delivery_leases', id)
  redis.call('ZREM', attempts_of(user or ''), id)
  if redis.call('HINCRBY', PREFIX .. 'delivering', endpoint_id, -1) <= 0 then
    redis.call('HDEL', PREFIX .. 'delivering', endpoint_id)
  end
end

-- Gives a damaged delivery up: it is dead, and in no queue.
local function bury_delivery(id, why, time, keep)
  if redis.call('ZSCORE', PREFIX .. 'delivery_leases', id) then
    release_delivery_lease(id)
  end
  count('deliveries_damaged')
  if redis.call('TYPE', delivery(id)).ok == 'hash' then
    finish_delivery(id, 'dead', time, keep, 'the record of this delivery is damaged: ' .. why)
  else
    redis.call('DEL', delivery(id))
    dequeue_delivery(id)
  end
end

-- Runs one step for one delivery and returns its result. If the fields of the delivery make the step
-- fail, gives that delivery up and returns nil, so that the script goes on with others.
local function contain_delivery(id, time, keep, step)
  local ok, result = pcall(step)
  if ok then
    return result
  end
  bury_delivery(id, reason_of(result), time, keep)
end

-- Removes a delivery from the queue that is not pending, because it was deleted or changed outside of
-- these scripts. `state` is nil if it was deleted or has just been given up.
local function remove_stray(endpoint_id, user, id, state, time, keep)
  redis.call('ZREM', due(endpoint_id), id or '')
  schedule_endpoint(endpoint_id, user)
  if state and not KNOWN_STATES[state] then
    bury_delivery(id, 'state ' .. state, time, keep)
  elseif id and not state then
    dequeue_delivery(id)
  end
end

-- Deletes an endpoint, but not its deliveries.
local function delete_endpoint(id, user)
  redis.call('DEL', endpoint(id), PREFIX .. 'tests:' .. id)
  redis.call('ZREM', PREFIX .. 'endpoints:' .. user, id)
  redis.call('SREM', registered(user), id)
  subscribe(user)
  schedule_endpoint(id, user)
end

-- Deletes a listener and some of its deliveries that are not finished; the listener is forgotten when
-- no more are left. Finished ones stay in the lists of their exports.
local function drop_listener(id)
  local user = redis.call('HGET', endpoint(id), 'user')
  if user then
    delete_endpoint(id, user)
  end
  local list = PREFIX .. 'deliveries:' .. id
  local found = redis.call('ZRANGE', list, 0, MAX_DROPPED - 1)
  for _, one in ipairs(found) do
    if redis.call('TYPE', delivery(one)).ok ~= 'hash' then
      redis.call('DEL', delivery(one))
    end
    local state = redis.call('HGET', delivery(one), 'state')
    if state == 'delivering' then
      release_delivery_lease(one)
    end
    if state == 'dead' or state == 'delivered' then
      redis.call('ZREM', list, one)
    else
      forget_delivery(one)
    end
  end
  if #found < MAX_DROPPED then
    redis.call('DEL', due(id), latest_progress(id))
    redis.call('HDEL', PREFIX .. 'delivering', id)
    redis.call('ZREM', LISTENING, id)
  end
end

-- Drops the listener whose time has been over for the longest time.
local function drop_expired_listener(time)
  local id = redis.call('ZRANGEBYSCORE', LISTENING, '-inf', int(time), 'LIMIT', 0, 1)[1]
  if id and not pcall(drop_listener, id) then
    -- Its record is damaged: it must not stop what the script is called for.
    redis.call('ZREM', LISTENING, id)
  end
end

local function emit_of_endpoint(id, kind, time)
  local user = redis.call('HGET', endpoint(id), 'user')
  if has_subscriber(user, kind) then
    local sequence = number(redis.call('HGET', endpoint(id), 'sequence')) + 1
    redis.call('HSET', endpoint(id), 'sequence', int(sequence))
    append_event(kind, id, int(sequence), time, '0', '0')
  end
end

local function disable(id, reason, time)
  local fields = redis.call('HMGET', endpoint(id), 'user', 'disabled_at')
  if fields[1] and not fields[2] then
    redis.call('HDEL', endpoint(id), 'warned')
    redis.call('HSET', endpoint(id), 'disabled_at', int(time), 'disabled_because', reason)
    subscribe(fields[1])
    if reason ~= 'owner' then
      emit_of_endpoint(id, 'endpoint.disabled', time)
    end
    return true
  end
  return false
end

local function enable(id)
  redis.call('HDEL', endpoint(id), 'disabled_at', 'disabled_because', 'failing_since', 'failed_at',
    'warned', 'slow', 'rest_until')
  local user = redis.call('HGET', endpoint(id), 'user')
  subscribe(user)
  schedule_endpoint(id, user)
end
