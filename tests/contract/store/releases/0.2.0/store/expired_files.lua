-- expired_files(limit) -> {id, all fields, …} of each export with a file past its retention, oldest
--   first
local limit = ARGV[1]

local records = {}
local expired = redis.call('ZRANGEBYSCORE', 'exporter:kept', '-inf', int(now()), 'LIMIT', 0, limit)
for _, id in ipairs(expired) do
  local fields = redis.call('HGETALL', record(id))
  if fields[1] then
    table.insert(records, id)
    table.insert(records, fields)
  else
    redis.call('ZREM', 'exporter:kept', id)
  end
end
return records
