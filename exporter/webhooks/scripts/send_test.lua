-- send_test(endpoint, message, body, keep in ms) -> 1, or 0 if there is no such endpoint
--
-- Creates a delivery of webhook.test. Idempotent: repeating a message has no effect.
local endpoint_id, message, body, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local user = redis.call('HGET', endpoint(endpoint_id), 'user')
if not user then
  return 0
end
local id = message .. '.' .. endpoint_id
if redis.call('EXISTS', delivery(id)) == 0 then
  make_delivery(id, endpoint_id, user, '', 'webhook.test', message, 1, body, now(), keep)
  wake_senders()
end
return 1
