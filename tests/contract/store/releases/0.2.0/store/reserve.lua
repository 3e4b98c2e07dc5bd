-- reserve(source, interval, max_wait, api_interval, worker_memory)
--   -> microseconds until the source's next request may start
--
-- The request is reserved if that wait is at most `max_wait`; otherwise none is. `interval` is the
-- time between the starts of two requests. All times are in microseconds.
--
-- Workers give 0 as `api_interval`. The API gives the time between two of its requests while a
-- worker has asked within `worker_memory`; one unused request is saved. A request beyond that is
-- not reserved, and its wait is above `max_wait`.
--
--   exporter:budget:{source}          integer   earliest start of the next request, since the epoch
--                                               by the clock of Redis; if missing, now
--   exporter:budget_workers:{source}  string    '1' if a worker has asked within `worker_memory`
--   exporter:budget_api:{source}      integer   earliest start of the next request of the API
local key = 'exporter:budget:' .. ARGV[1]
local workers, api = 'exporter:budget_workers:' .. ARGV[1], 'exporter:budget_api:' .. ARGV[1]
local interval, max_wait, api_interval = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local worker_memory = tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Replaces a value that expires at the time `expires`. DEL comes first because a full Redis refuses
-- a script whose first write needs memory: running exports must be able to end and free memory.
local function replace(name, value, expires)
  redis.call('DEL', name)
  redis.call('SET', name, value, 'PX', math.max(1, math.ceil((expires - now) / 1000)))
end

local api_start
if api_interval == 0 then
  replace(workers, '1', now + worker_memory)
elseif redis.call('EXISTS', workers) == 1 then
  api_start = math.max(tonumber(redis.call('GET', api) or 0), now - api_interval)
  if api_start > now then
    return math.max(api_start - now, max_wait + 1000)
  end
end
local start = math.max(tonumber(redis.call('GET', key) or now), now)
if start - now <= max_wait then
  replace(key, string.format('%.0f', start + interval), start + interval)
  if api_start then
    replace(api, string.format('%.0f', api_start + api_interval), now + 2 * api_interval)
  end
end
return start - now
