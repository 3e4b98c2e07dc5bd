-- create(id, user, level, spec, key or '', fingerprint, remember in ms, payer or '', reserved,
--        concurrency, hook_events or '') -> {outcome, all fields}
--
-- The outcome is 'created'; 'replayed' with the record that the idempotency key created before;
-- 'reused' (key used with another fingerprint) or 'spent' (the key's export is deleted or expired),
-- both without fields; or 'short', with the payer's remaining credits instead of fields. A second
-- call with the same id changes nothing and returns the record.
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
    local left = credits_left(payer)
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
  -- A record expires by its TTL, but its entry in this list does not. Each create removes up to two
  -- of the oldest expired entries, so that the list stays bounded even if its user never reads it.
  for _, oldest in ipairs(redis.call('ZRANGE', index, 0, 1)) do
    if redis.call('EXISTS', record(oldest)) == 0 then
      redis.call('ZREM', index, oldest)
    end
  end
  -- Scores are unique, even within one microsecond or after the clock was set back, so a score is a
  -- sufficient cursor for keyset pagination.
  local newest = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  redis.call('ZADD', index, int(math.max(time, tonumber(newest[2] or 0) + 1)), id)
  redis.call('ZADD', 'exporter:users', 'NX', int(time), user)
  redis.call('SETNX', 'exporter:since', int(time))
  count('exports_created')
  enqueue_and_wake(level, user, id, time)
  emit(id, 'export.queued', time)
end
return {'created', redis.call('HGETALL', record(id))}
