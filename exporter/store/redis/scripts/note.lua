-- note(id, what, by, detail) -> 1; 0 if the id is unknown, deleted or that of a partition
--
-- Adds an entry to the activity of an export, about something that no other script does.
local id, what, by, detail = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local fields = redis.call('HMGET', record(id), 'user', 'deleted', 'whole')
if not fields[1] or fields[2] or fields[3] then
  return 0
end
add_activity(id, now(), what, by, detail)
return 1
