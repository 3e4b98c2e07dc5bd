-- reserve(source, interval, patience) -> microseconds until the next request of the source may start,
-- which is reserved if that is at most the patience
--
--   exporter:budget:{source}   integer   when the next request may start, in microseconds since the
--                                        epoch by the clock of Redis; without it, now
local key = 'exporter:budget:' .. ARGV[1]
local interval, patience = tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local start = math.max(tonumber(redis.call('GET', key) or now), now)
if start - now <= patience then
  -- A full Redis refuses a script's first write if it grows, but none after one that removes:
  -- exports under way must be able to end, and make room.
  redis.call('DEL', key)
  redis.call('SET', key, string.format('%.0f', start + interval),
    'PX', math.ceil((start + interval - now) / 1000))
end
return start - now
