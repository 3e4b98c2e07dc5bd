-- redo(endpoint, failed '1' or '0', most, before, id, …)
--   -> number of deliveries that are due; -1 if the endpoint is disabled or deleted
--
-- Makes up to `most` deliveries of that endpoint pending and due, with their attempts counted from
-- 0. With failed '1' only dead deliveries, and pending ones with at least one failed attempt.
-- Deliveries whose attempt is running are not changed. `before` is the number of deliveries that
-- earlier calls for the same request made due. The first BURST are due now, then one delivery every
-- SPACING microseconds, so that a recovery does not flood its receiver.
local endpoint_id, failed, most = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local before = tonumber(ARGV[4])
local BURST, SPACING = 100, 50000

local known = redis.call('HMGET', endpoint(endpoint_id), 'user', 'disabled_at')
if not known[1] or known[2] then
  return -1
end
local time = now()
local redone = 0
for at = 5, #ARGV do
  if redone >= most then
    break
  end
  local id = ARGV[at]
  local fields = redis.call('HMGET', delivery(id), 'state', 'attempts', 'endpoint')
  local state = fields[1]
  local has_failed = state == 'dead' or (state == 'pending' and fields[2])
  if fields[3] == endpoint_id and state ~= 'delivering' and (has_failed or not failed) then
    redis.call('ZREM', 'exporter:dead:' .. known[1], id)
    redis.call('HDEL', delivery(id), 'finished_at', 'gave_up', 'lost')
    redis.call('HSET', delivery(id), 'tries', '0')
    redis.call('PERSIST', delivery(id))
    -- A damaged delivery stays dead: its retention starts again.
    if pcall(enqueue_delivery, id, time + math.max(0, before + redone - BURST) * SPACING) then
      redone = redone + 1
    else
      redis.call('HSET', delivery(id), 'state', 'dead')
      redis.call('EXPIRE', delivery(id), 30 * 86400)
    end
  end
end
if redone > 0 then
  wake_senders()
end
return redone
