-- forget_file(id) -> 1, or 0 if it was forgotten before
local id = ARGV[1]

if redis.call('ZREM', 'exporter:kept', id) == 0 then
  return 0
end
emit(id, 'export.expired', now())
return 1
