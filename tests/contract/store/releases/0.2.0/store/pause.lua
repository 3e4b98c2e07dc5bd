-- pause(source, pause) -> 1
--
-- No request of the source starts within `pause` microseconds, except those already reserved.
-- reserve.lua describes the key exporter:budget:{source}.
local key, pause = 'exporter:budget:' .. ARGV[1], tonumber(ARGV[2])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local start = math.max(tonumber(redis.call('GET', key) or 0), now + pause)
redis.call('DEL', key)
redis.call('SET', key, string.format('%.0f', start), 'PX', math.max(1, math.ceil((start - now) / 1000)))
return 1
