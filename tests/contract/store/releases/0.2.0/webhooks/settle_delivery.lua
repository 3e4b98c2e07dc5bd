-- settle_delivery(id, nonce, state after it, attempt as JSON, delay, rest, health, gave_up or '',
--                 keep in ms, warn_after, disable_after, max_failure_gap)
--   -> '' if the nonce is stale, 'ok', or the change of the endpoint: 'failing', 'disabled gone' or
--      'disabled failing'
--
-- Records the result of an attempt. The new state is delivered, dead, or pending with the next
-- attempt after `delay`. The endpoint is not served before `rest` is over. `health` is the verdict
-- about the endpoint: 'well', 'slow', 'failed', 'gone' or 'unknown'. A failure more than
-- `max_failure_gap` after the previous one starts a new run of consecutive failures. All durations
-- except `keep` are in microseconds. Idempotent: a second call with the same nonce returns 'ok'
-- without a change.
local id, nonce, state, attempt = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local delay, rest, health, gave_up = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
local keep, warn_after = tonumber(ARGV[9]), tonumber(ARGV[10])
local disable_after, max_failure_gap = tonumber(ARGV[11]), tonumber(ARGV[12])

local fields = redis.call('HMGET', delivery(id), 'state', 'fence', 'attempts', 'superseded')
if fields[2] ~= nonce then
  return ''
end
if fields[1] ~= 'delivering' then
  return 'ok'
end
local time = now()
local endpoint_id = place_of(id)
release_delivery_lease(id)

local attempts = fields[3] and fields[3] .. '\n' .. attempt or attempt
local _, lines = string.gsub(attempts, '\n', '')
if lines >= MAX_STORED_ATTEMPTS then
  attempts = string.gsub(attempts, '^[^\n]*\n', '', 1)
end
while #attempts > MAX_ATTEMPT_BYTES and string.find(attempts, '\n', 1, true) do
  attempts = string.gsub(attempts, '^[^\n]*\n', '', 1)
end
redis.call('HDEL', delivery(id), 'lost')
redis.call('HSET', delivery(id), 'attempts', attempts)
redis.call('HSET', delivery(id), 'tries', int(number(redis.call('HGET', delivery(id), 'tries')) + 1))

local change = 'ok'
local known = redis.call('EXISTS', endpoint(endpoint_id)) == 1
if known and (health == 'well' or health == 'slow') then
  redis.call('HDEL', endpoint(endpoint_id), 'failing_since', 'failed_at', 'warned', 'slow')
elseif known and health ~= 'unknown' then
  local since = redis.call('HMGET', endpoint(endpoint_id), 'failing_since', 'failed_at')
  if not since[1] or time - number(since[2]) > max_failure_gap then
    redis.call('HDEL', endpoint(endpoint_id), 'warned')
    redis.call('HSET', endpoint(endpoint_id), 'failing_since', int(time))
  end
  redis.call('HSET', endpoint(endpoint_id), 'failed_at', int(time))
  local failing_for = time - number(redis.call('HGET', endpoint(endpoint_id), 'failing_since'))
  if health == 'gone' then
    change = disable(endpoint_id, 'gone', time) and 'disabled gone' or 'ok'
  elseif failing_for >= disable_after then
    change = disable(endpoint_id, 'failing', time) and 'disabled failing' or 'ok'
  elseif failing_for >= warn_after
      and redis.call('HSETNX', endpoint(endpoint_id), 'warned', '1') == 1 then
    emit_of_endpoint(endpoint_id, 'endpoint.failing', time)
    change = 'failing'
  end
end
if known and health ~= 'well' and health ~= 'unknown' then
  redis.call('HSET', endpoint(endpoint_id), 'slow', '1')
end
if known and rest > 0 then
  redis.call('HSET', endpoint(endpoint_id), 'rest_until', int(time + rest))
end

if fields[4] then
  forget_delivery(id)
elseif state == 'pending' then
  count('webhooks_failed')
  make_delivery_pending(id, time + delay)
else
  finish_delivery(id, state, time, keep, gave_up)
end
return change
