-- set_aside(id, fence, clean, wait, reason) -> number of tries so far, or 0 for a stale fence
--
-- Releases a claimed record that the worker cannot read, for a worker of another version; fails the
-- export after MAX_TRIES. `clean` is that of the claim, `wait` is in microseconds. A second call
-- with the same fence changes nothing.
local id, fence, clean, wait, reason = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

if not holds_lease(id, fence) then
  return 0
end
return set_aside(id, reason, now(), wait, clean)
