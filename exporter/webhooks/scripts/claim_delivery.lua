-- claim_delivery(nonce, lease, keep in ms, slow '1' or '0', in-flight limit of a user)
--   -> {id, all fields of the delivery, all fields of the endpoint, time},
--      or {time at which the next delivery is due}, or {} if no endpoint is scheduled
--
-- Idempotent: the caller generates a nonce for each claim, and a second call with the same nonce
-- returns the same delivery while its lease is held. With slow '0', endpoints whose previous
-- attempt failed or was slow are skipped. Stops after MAX_CHECKED deliveries and users that cannot
-- be claimed.
local nonce, lease, keep, slow = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local user_limit = tonumber(ARGV[5])
local MAX_CHECKED = 100

local time = now()
local function answer(id)
  local endpoint_id = place_of(id)
  return {id, redis.call('HGETALL', delivery(id)), redis.call('HGETALL', endpoint(endpoint_id)),
    int(time)}
end

local answered = redis.call('GET', PREFIX .. 'claim:' .. nonce)
if answered then
  local fields = redis.call('HMGET', delivery(answered), 'state', 'fence')
  return (fields[1] == 'delivering' and fields[2] == nonce) and answer(answered) or {}
end

-- Earlier versions kept the endpoints of all users in one lane. Those that such a version still
-- schedules move to the lanes of their users.
for _, speed in ipairs(SPEEDS) do
  local shared = PREFIX .. 'lane:' .. speed
  for _, id in ipairs(redis.call('ZRANGE', shared, 0, MAX_CHECKED - 1)) do
    redis.call('ZREM', shared, id)
    local first = redis.call('ZRANGE', due(id), 0, 0)[1]
    local user = redis.call('HGET', endpoint(id), 'user')
      or (first and redis.call('HGET', delivery(first), 'user'))
    if user then
      schedule_endpoint(id, user)
    end
  end
end

-- Returns the user who has waited longest, the time since which that user can be served, and the
-- speed of the user's lane.
local function next_turn()
  local user, since, lane_speed
  for _, speed in ipairs(slow == '1' and SPEEDS or {'fast'}) do
    local first = redis.call('ZRANGE', turns(speed), 0, 0, 'WITHSCORES')
    if first[1] and (not since or tonumber(first[2]) < since) then
      user, since, lane_speed = first[1], tonumber(first[2]), speed
    end
  end
  return user, since, lane_speed
end

-- Lets a user whose in-flight limit is reached wait for the end of an attempt, or else for the
-- expiry of its lease.
local function wait_for_attempt(user)
  local first = redis.call('ZRANGE', attempts_of(user), 0, 0, 'WITHSCORES')
  for _, speed in ipairs(SPEEDS) do
    redis.call('ZADD', turns(speed), 'XX', first[2], user)
  end
end

for _ = 1, MAX_CHECKED do
  local user, since, speed = next_turn()
  if not user then
    return {}
  end
  if since > time then
    return {int(since)}
  end
  redis.call('ZREMRANGEBYSCORE', attempts_of(user), '-inf', int(time))
  local endpoint_id = redis.call('ZRANGE', lane(speed, user), 0, 0)[1]
  local id = endpoint_id and redis.call('ZRANGE', due(endpoint_id), 0, 0)[1]
  local fields = id and contain_delivery(id, time, keep, function()
    return redis.call('HMGET', delivery(id), 'state', 'type')
  end) or {}
  local known = endpoint_id and redis.call('HMGET', endpoint(endpoint_id), 'user', 'disabled_at')
  if not endpoint_id then
    schedule_user(user)
  elseif fields[1] ~= 'pending' then
    remove_stray(endpoint_id, user, id, fields[1], time, keep)
  elseif not known[1] then
    finish_delivery(id, 'dead', time, keep, 'the endpoint is deleted')
  elseif known[2] and fields[2] ~= 'webhook.test' then
    finish_delivery(id, 'dead', time, keep, 'the endpoint is disabled')
  elseif redis.call('ZCARD', attempts_of(user)) >= user_limit then
    wait_for_attempt(user)
  else
    begin_attempt(id, endpoint_id, nonce, time + lease)
    redis.call('ZADD', attempts_of(user), int(time + lease), id)
    redis.call('PEXPIRE', attempts_of(user), int(lease / 1000) + 1)
    redis.call('HSET', endpoint(endpoint_id), 'served_at', int(time))
    redis.call('SET', latest_turn(user), int(time), 'EX', 60)
    schedule_endpoint(endpoint_id, user)
    return answer(id)
  end
end
return {int(time)}
