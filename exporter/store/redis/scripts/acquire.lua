-- acquire(name, requests, window) -> {allowed 0 or 1, hits in the window, now, when the oldest leaves}
--
--   exporter:rate:{name}   list   when each hit within the window was, newest first
--
-- Times are in microseconds by the clock of Redis. A hit leaves the window when it is as old as the
-- window is long. A refused one is not counted.
local key = 'exporter:rate:' .. ARGV[1]
local requests, window = tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local newest = tonumber(redis.call('LINDEX', key, 0) or 0)
if newest > now + window then
  -- The clock was set back by more than a window: nobody is to wait until it has caught up.
  redis.call('DEL', key)
else
  now = math.max(now, newest)
end
-- Only the newest count, should the rate have been lowered. And a full Redis refuses a script's
-- first write if it grows, but none after one that removes: who polls must not be shut out.
redis.call('LTRIM', key, 0, requests - 1)
local oldest = tonumber(redis.call('LINDEX', key, -1) or now)
while oldest <= now - window do
  redis.call('RPOP', key)
  oldest = tonumber(redis.call('LINDEX', key, -1) or now)
end
local hits = redis.call('LLEN', key)
local allowed = 0
if hits < requests then
  allowed, hits = 1, hits + 1
  redis.call('LPUSH', key, string.format('%.0f', now))
  redis.call('PEXPIRE', key, math.ceil(window / 1000))
end
return {allowed, hits, string.format('%.0f', now), string.format('%.0f', oldest + window)}
