-- create(id, user, level, spec, key or '', fingerprint, remember in ms) -> {how, all fields}
--
-- How is 'created' or 'replayed'; or 'reused' or 'spent', without fields. The second call for an id
-- changes nothing and returns the first one's record.
local id, user, level, spec = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key, fingerprint, remember = ARGV[5], ARGV[6], ARGV[7]

if key ~= '' then
  key = 'exporter:idempotency:' .. key
  local known = redis.call('GET', key)
  if known then
    local before, first = string.match(known, '^(%S+) (.*)$')
    if before ~= fingerprint then
      return {'reused'}
    end
    if first ~= id then
      local fields = redis.call('HMGET', record(first), 'state', 'deleted')
      if not fields[1] or fields[2] then
        return {'spent'}
      end
      count('exports_replayed')
      return {'replayed', redis.call('HGETALL', record(first))}
    end
  end
end

if redis.call('EXISTS', record(id)) == 0 then
  local time = now()
  redis.call('HSET', record(id), 'spec', spec, 'user', user, 'level', level,
    'state', 'queued', 'phase', 'ready', 'created_at', int(time), 'updated_at', int(time))
  if key ~= '' then
    redis.call('SET', key, fingerprint .. ' ' .. id, 'PX', remember)
  end
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
  redis.call('ZADD', 'exporter:users', 'NX', int(time), user)
  redis.call('SETNX', 'exporter:since', int(time))
  count('exports_created')
  line_up(level, user, id, time)
end
return {'created', redis.call('HGETALL', record(id))}
