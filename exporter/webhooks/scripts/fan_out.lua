-- fan_out(message, over '1' or '0', keep in ms, keep_endpoint in ms, endpoint, body, …)
--   -> deliveries made, or -1 if the message is not the oldest
--
-- Only the oldest entry is taken, so that any number of processes keep the order of the outbox.
local message, over, keep, keep_endpoint = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]

local entry = redis.call('LINDEX', 'exporter:outbox', 0)
if not entry then
  return -1
end
local kind, sequence, subject = string.match(entry, '^(%S+) %S+ (%S+) %S+ %S+ (.*)$')
if message ~= 'msg_' .. subject .. '_' .. sequence then
  return -1
end
redis.call('LPOP', 'exporter:outbox')
local export = string.sub(kind, 1, 7) == 'export.' and subject or ''
local time = now()
local made = 0
for at = 5, #ARGV, 2 do
  local address, body = ARGV[at], ARGV[at + 1]
  local fields = redis.call('HMGET', endpoint(address), 'user', 'disabled_at', 'own')
  if fields[1] and not fields[2] then
    local id = message .. '.' .. address
    if fields[3] == '0' then
      redis.call('PEXPIRE', endpoint(address), keep_endpoint)
    end
    if over or kind == 'export.progress' then
      supersede(address, export, id, over)
    end
    make_delivery(id, address, fields[1], export, kind, message, sequence, body, time, keep)
    if kind == 'export.progress' then
      redis.call('PEXPIRE', latest(address), keep_endpoint)
    end
    made = made + 1
  end
end
count('webhooks_created', made)
return made
