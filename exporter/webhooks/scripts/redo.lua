-- redo(endpoint, failed '1' or '0', id, …) -> how many are due now; -1 if the endpoint is disabled or
--   deleted
--
-- Deliveries of that endpoint begin their tries anew; with failed '1' only those that failed. One
-- that is under way is left alone.
local address, failed = ARGV[1], ARGV[2] == '1'

local known = redis.call('HMGET', endpoint(address), 'user', 'disabled_at')
if not known[1] or known[2] then
  return -1
end
local time = now()
local redone = 0
for at = 3, #ARGV do
  local id = ARGV[at]
  local fields = redis.call('HMGET', delivery(id), 'state', 'attempts', 'endpoint')
  local state = fields[1]
  local has_failed = state == 'dead' or (state == 'pending' and fields[2])
  if fields[3] == address and state ~= 'delivering' and (has_failed or not failed) then
    redis.call('ZREM', 'exporter:dead:' .. known[1], id)
    redis.call('HDEL', delivery(id), 'finished_at', 'gave_up', 'lost')
    redis.call('HSET', delivery(id), 'tries', '0')
    redis.call('PERSIST', delivery(id))
    join(id, time)
    redone = redone + 1
  end
end
if redone > 0 then
  wake_senders()
end
return redone
