-- send_test(endpoint, message, body, keep in ms, most) -> 1, or 0 if there is no such endpoint
--
-- Creates a delivery of webhook.test, and deletes all but the latest MAX_TESTS tests of the
-- endpoint. Idempotent: repeating a message has no effect.
local MAX_TESTS = 20
local endpoint_id, message, body, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local user = redis.call('HGET', endpoint(endpoint_id), 'user')
if not user then
  return 0
end
local id = message .. '.' .. endpoint_id
if redis.call('EXISTS', delivery(id)) == 0 then
  make_delivery(id, endpoint_id, user, '', 'webhook.test', message, 1, body, now(), keep,
    tonumber(ARGV[5]))
  local tests = 'exporter:tests:' .. endpoint_id
  redis.call('LPUSH', tests, id)
  redis.call('PEXPIRE', tests, keep)
  while redis.call('LLEN', tests) > MAX_TESTS do
    local oldest = redis.call('RPOP', tests)
    local state = redis.call('HGET', delivery(oldest), 'state')
    if state and state ~= 'delivering' then
      forget_delivery(oldest)
    end
  end
  wake_senders()
end
return 1
