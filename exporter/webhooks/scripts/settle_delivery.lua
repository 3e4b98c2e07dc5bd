-- settle_delivery(id, nonce, state after it, attempt as JSON, delay, rest, health, gave_up or '',
--                 keep in ms, warn_after, disable_after, forgive_after)
--   -> '' if the nonce is stale; 'ok'; or what the endpoint became: 'failing', 'disabled gone' or
--      'disabled failing'
--
-- The state after it is delivered, dead, or pending for another try after `delay`; nothing of the
-- endpoint is tried before `rest` is over. Health is what the try says of the endpoint: 'well',
-- 'slow', 'failed', 'gone', or 'unknown'. An endpoint is thought to have recovered unseen if nothing
-- failed for `forgive_after`. All durations but `keep` are in microseconds.
local id, nonce, state, attempt = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local delay, rest, health, gave_up = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
local keep, warn_after = tonumber(ARGV[9]), tonumber(ARGV[10])
local disable_after, forgive_after = tonumber(ARGV[11]), tonumber(ARGV[12])

local fields = redis.call('HMGET', delivery(id), 'state', 'fence', 'endpoint', 'attempts',
  'superseded')
if fields[2] ~= nonce then
  return ''
end
if fields[1] ~= 'delivering' then
  return 'ok'
end
local time = now()
local address = fields[3]
let_go(id, address)

local attempts = fields[4] and fields[4] .. '\n' .. attempt or attempt
local _, lines = string.gsub(attempts, '\n', '')
if lines >= ATTEMPTS then
  attempts = string.gsub(attempts, '^[^\n]*\n', '', 1)
end
redis.call('HDEL', delivery(id), 'lost')
redis.call('HSET', delivery(id), 'attempts', attempts)
redis.call('HINCRBY', delivery(id), 'tries', 1)

local became = 'ok'
local known = redis.call('EXISTS', endpoint(address)) == 1
if known and (health == 'well' or health == 'slow') then
  redis.call('HDEL', endpoint(address), 'failing_since', 'failed_at', 'warned', 'slow')
elseif known and health ~= 'unknown' then
  local since = redis.call('HMGET', endpoint(address), 'failing_since', 'failed_at')
  if not since[1] or time - tonumber(since[2]) > forgive_after then
    redis.call('HDEL', endpoint(address), 'warned')
    redis.call('HSET', endpoint(address), 'failing_since', int(time))
  end
  redis.call('HSET', endpoint(address), 'failed_at', int(time))
  local failing_for = time - tonumber(redis.call('HGET', endpoint(address), 'failing_since'))
  if health == 'gone' then
    became = disable(address, 'gone', time) and 'disabled gone' or 'ok'
  elseif failing_for >= disable_after then
    became = disable(address, 'failing', time) and 'disabled failing' or 'ok'
  elseif failing_for >= warn_after and redis.call('HSETNX', endpoint(address), 'warned', '1') == 1 then
    emit_of_endpoint(address, 'endpoint.failing', time)
    became = 'failing'
  end
end
if known and health ~= 'well' and health ~= 'unknown' then
  redis.call('HSET', endpoint(address), 'slow', '1')
end
if known and rest > 0 then
  redis.call('HSET', endpoint(address), 'rest_until', int(time + rest))
end

if fields[5] then
  forget_delivery(id)
elseif state == 'pending' then
  count('webhooks_failed')
  line_up_delivery(id, time + delay)
else
  finish_delivery(id, state, time, keep, gave_up)
end
return became
