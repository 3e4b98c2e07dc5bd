-- rejoin(id, fence) -> 'continue', 'cancel' or 'lost'
--
-- Removes the partitions and the checkpoint, so that the export is read again from the start as
-- one.
local id, fence = ARGV[1], ARGV[2]

if not holds_lease(id, fence) then
  return 'lost'
end
local fields = redis.call('HMGET', record(id), 'cancel', 'partitions')
if fields[1] then
  return 'cancel'
end
if fields[2] == '0' then
  return 'continue'
end
forget_partitions(id)
if fields[2] then
  count('exports_rejoined')
end
redis.call('HDEL', record(id), 'checkpoint', 'closing', 'pages', 'parts', 'cut_by')
redis.call('HSET', record(id), 'partitions', '0', 'phase', 'reading', 'updated_at', int(now()))
return 'continue'
