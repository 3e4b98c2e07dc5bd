-- put_off(message) -> 1, or 0 if the message is not the oldest of the outbox
--
-- Moves the oldest event to the end of the outbox.
local message = ARGV[1]

local entry = redis.call('LINDEX', 'exporter:outbox', 0)
if not entry then
  return 0
end
local sequence, subject = string.match(entry, '^%S+ %S+ (%S+) %S+ %S+ (.*)$')
if message ~= 'msg_' .. subject .. '_' .. sequence then
  return 0
end
redis.call('LPOP', 'exporter:outbox')
redis.call('RPUSH', 'exporter:outbox', entry)
return 1
