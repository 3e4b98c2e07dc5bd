-- partitions(id) -> {all fields of each partition with the spec of its export}, in order
--
-- Empty if the export is not cut or has ended.
local id = ARGV[1]

local found = {}
local fields = redis.call('HMGET', record(id), 'state', 'partitions')
local cut_into = fields[1] == 'processing' and tonumber(fields[2] or 0) or 0
for place = 0, math.min(cut_into, MAX_PARTITIONS) - 1 do
  table.insert(found, all_fields(id .. '/' .. place))
end
return found
