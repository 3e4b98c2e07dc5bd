-- forget_file(id) -> 1 if the file is now recorded as deleted; 0 if it was before, or never existed
local id = ARGV[1]

if redis.call('ZREM', 'exporter:kept', id) == 0 then
  return 0
end
emit(id, 'export.expired', now())
return 1
