-- Counts a request in a sliding window, unless the window is full.
--   -> {allowed 0 or 1, counted requests in the window, now, time at which the oldest leaves}
--
-- `key` is the list of the times of the counted requests, newest first; `requests` is the limit.
-- Times are in microseconds by the clock of Redis. A request leaves the window when it is as old as
-- the window is long. A refused request is not counted.
local function acquire(key, requests, window)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local newest = tonumber(redis.call('LINDEX', key, 0) or 0)
  if newest > now + window then
    -- The clock was set back by more than a window: start again, so that no caller waits for it.
    redis.call('DEL', key)
  else
    now = math.max(now, newest)
  end
  -- Keeps only the newest requests, in case the limit was lowered. This write comes first because a
  -- full Redis refuses a script whose first write needs memory: polls must be allowed even then.
  redis.call('LTRIM', key, 0, requests - 1)
  local oldest = tonumber(redis.call('LINDEX', key, -1) or now)
  while oldest <= now - window do
    redis.call('RPOP', key)
    oldest = tonumber(redis.call('LINDEX', key, -1) or now)
  end
  local counted = redis.call('LLEN', key)
  local allowed = 0
  if counted < requests then
    allowed, counted = 1, counted + 1
    redis.call('LPUSH', key, string.format('%.0f', now))
    redis.call('PEXPIRE', key, math.ceil(window / 1000))
  end
  return {allowed, counted, string.format('%.0f', now), string.format('%.0f', oldest + window)}
end
