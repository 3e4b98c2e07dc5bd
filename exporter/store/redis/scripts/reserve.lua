-- reserve(source, interval, max_wait) -> microseconds until the source's next request may start
--
-- The request is reserved if that wait is at most `max_wait`; otherwise nothing changes. `interval`
-- is the time between the starts of two requests. Both are in microseconds.
--
--   exporter:budget:{source}   integer   earliest start of the next request, in microseconds since
--                                        the epoch by the clock of Redis; if missing, now
local key = 'exporter:budget:' .. ARGV[1]
local interval, max_wait = tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local start = math.max(tonumber(redis.call('GET', key) or now), now)
if start - now <= max_wait then
  -- DEL comes first because a full Redis refuses a script whose first write needs memory: running
  -- exports must be able to end and free memory.
  redis.call('DEL', key)
  redis.call('SET', key, string.format('%.0f', start + interval),
    'PX', math.ceil((start + interval - now) / 1000))
end
return start - now
