-- expired_files(limit) -> the fields of each record, oldest expiry first
local limit = ARGV[1]

local records = {}
local past = redis.call('ZRANGEBYSCORE', 'exporter:kept', '-inf', int(now()), 'LIMIT', 0, limit)
for _, id in ipairs(past) do
  local fields = redis.call('HGETALL', record(id))
  if fields[1] then
    table.insert(records, fields)
  else
    redis.call('ZREM', 'exporter:kept', id)
  end
end
return records
