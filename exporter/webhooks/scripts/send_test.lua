-- send_test(endpoint, message, body, keep in ms) -> 1, or 0 if there is no such endpoint
local address, message, body, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local user = redis.call('HGET', endpoint(address), 'user')
if not user then
  return 0
end
local id = message .. '.' .. address
if redis.call('EXISTS', delivery(id)) == 0 then
  make_delivery(id, address, user, '', 'webhook.test', message, 1, body, now(), keep)
  wake_senders()
end
return 1
