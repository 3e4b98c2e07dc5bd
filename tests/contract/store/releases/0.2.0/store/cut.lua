-- cut(id, fence, {partition, weight} …)
--   -> 'continue', 'cancel' or 'lost'; 'decided' if the export was cut or rejoined before, or is
--      itself a partition
--
-- A second call with the fence that cut the export changes nothing and returns 'continue'.
local id, fence = ARGV[1], ARGV[2]

local fields = redis.call('HMGET', record(id), 'state', 'fence', 'cut_by')
if fields[1] == 'processing' and fields[2] == fence and fields[3] == fence then
  return 'continue'
end
if not holds_lease(id, fence) then
  return 'lost'
end
fields = redis.call('HMGET', record(id), 'cancel', 'partitions', 'whole', 'user', 'level',
  'concurrency', 'created_at', 'started_at')
if fields[1] then
  return 'cancel'
end
if fields[2] or fields[3] then
  return 'decided'
end
local user, level, concurrency = fields[4], fields[5], fields[6]
local time = now()
local partitions = (#ARGV - 2) / 2
for place = 0, partitions - 1 do
  local one = id .. '/' .. place
  redis.call('HSET', record(one), 'whole', id, 'partition', ARGV[3 + 2 * place],
    'weight', ARGV[4 + 2 * place], 'user', user, 'level', level, 'state', 'processing',
    'phase', 'ready', 'created_at', fields[7], 'started_at', fields[8], 'updated_at', int(time))
  if concurrency then
    redis.call('HSET', record(one), 'concurrency', concurrency)
  end
  enqueue_and_wake(level, user, one, time)
end
drop_lease(id)
redis.call('HSET', record(id), 'partitions', partitions, 'cut_by', fence, 'phase', 'reading',
  'clean', '1', 'updated_at', int(time))
redis.call('ZADD', 'exporter:cut', int(time + CUT_CHECK_MICROS), id)
count('exports_cut')
return 'continue'
