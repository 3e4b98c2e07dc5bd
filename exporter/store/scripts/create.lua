-- create(id, user, level, spec) -> all fields of the record
--
-- The second call for an id changes nothing and returns the first one's record.
local id, user, level, spec = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('EXISTS', record(id)) == 0 then
  local time = now()
  redis.call('HSET', record(id), 'spec', spec, 'user', user, 'level', level,
    'state', 'queued', 'phase', 'ready', 'created_at', int(time), 'updated_at', int(time))
  local index = 'exporter:user:' .. user
  -- Records expire by themselves, their place in the list does not: each newcomer clears away up
  -- to two of the oldest, so that the list of a user who never looks at it stays bounded.
  for _, oldest in ipairs(redis.call('ZRANGE', index, 0, 1)) do
    if redis.call('EXISTS', record(oldest)) == 0 then
      redis.call('ZREM', index, oldest)
    end
  end
  -- No two share a place, not even in one microsecond or when the clock is set back, so a place is
  -- all that a page of the list needs to go on from.
  local newest = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  redis.call('ZADD', index, int(math.max(time, tonumber(newest[2] or 0) + 1)), id)
  line_up(level, user, id, time)
end
return redis.call('HGETALL', record(id))
