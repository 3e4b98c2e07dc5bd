-- create(id, user, level, spec, key or '', fingerprint, remember in ms, payer or '', reserved,
--        concurrency, hook_events or '') -> {how, all fields}
--
-- How is 'created' or 'replayed'; 'reused' or 'spent', without fields; or 'short', with what the
-- payer has left instead. The second call for an id changes nothing and returns the first one's
-- record.
local id, user, level, spec = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key, fingerprint, remember = ARGV[5], ARGV[6], ARGV[7]
local payer, reserved, concurrency = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local hook_events = ARGV[11]

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
  if payer ~= '' then
    local left = left_of(payer)
    if not left then
      reserved = 0
    elseif left < reserved then
      return {'short', int(left)}
    elseif reserved > 0 then
      redis.call('HINCRBY', account(payer), 'left', -reserved)
      redis.call('HINCRBY', account(payer), 'reserved', reserved)
      count('credits_reserved', reserved)
    end
    redis.call('HSET', record(id), 'payer', payer, 'reserved', reserved)
  end
  local time = now()
  redis.call('HSET', record(id), 'spec', spec, 'user', user, 'level', level,
    'state', 'queued', 'phase', 'ready', 'created_at', int(time), 'updated_at', int(time))
  if concurrency > 0 then
    redis.call('HSET', record(id), 'concurrency', concurrency)
  end
  if hook_events ~= '' then
    redis.call('HSET', record(id), 'hook_events', hook_events)
  end
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
  emit(id, 'export.queued', time)
end
return {'created', redis.call('HGETALL', record(id))}
