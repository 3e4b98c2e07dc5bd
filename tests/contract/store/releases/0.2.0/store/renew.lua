-- renew(id, fence, lease, progress or '') -> 'continue', 'cancel' or 'lost'
local id, fence, lease, progress = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

if not holds_lease(id, fence) then
  return 'lost'
end
local time = now()
local verdict = renew_lease(id, time, lease)
advance(id, time, progress, 0)
emit_progress(id, time)
return verdict
