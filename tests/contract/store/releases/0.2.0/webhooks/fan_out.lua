-- fan_out(message, over '1' or '0', keep in ms, keep_endpoint in ms, most, endpoint, body, …)
--   -> number of deliveries made, or -1 if the message is not the oldest
--
-- Replaces the oldest event of the outbox by one delivery for each endpoint; endpoints that are
-- disabled or deleted are skipped. Because only the oldest event is accepted, any number of
-- processes keep the order of the outbox. `over` says that the event ends its export.
local message, over, keep, keep_endpoint = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local most = tonumber(ARGV[5])

local entry = redis.call('LINDEX', 'exporter:outbox', 0)
if not entry or message ~= message_of(entry) then
  return -1
end
local kind, sequence, subject = parse_event(entry)
redis.call('LPOP', 'exporter:outbox')
redis.call('HDEL', 'exporter:outbox_tries', entry)
local export = string.sub(kind, 1, 7) == 'export.' and subject or ''
local time = now()
local made = 0
for at = 6, #ARGV, 2 do
  local endpoint_id, body = ARGV[at], ARGV[at + 1]
  local fields = redis.call('HMGET', endpoint(endpoint_id), 'user', 'disabled_at', 'own')
  if fields[1] and not fields[2] then
    local id = message .. '.' .. endpoint_id
    if fields[3] == '0' then
      redis.call('PEXPIRE', endpoint(endpoint_id), keep_endpoint)
    end
    if over or kind == 'export.progress' then
      supersede(endpoint_id, export, id, over)
    end
    contain_delivery(id, time, keep, function()
      make_delivery(id, endpoint_id, fields[1], export, kind, message, sequence, body, time, keep,
        most)
    end)
    if kind == 'export.progress' then
      redis.call('PEXPIRE', latest_progress(endpoint_id), keep_endpoint)
    end
    made = made + 1
  end
end
count('webhooks_created', made)
return made
