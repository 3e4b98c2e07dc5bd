-- commit(id, fence, lease, progress, checkpoint, pages, parts, closing or '', rows)
--   -> 'continue', 'cancel' or 'lost'
local id, fence, lease, progress = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local checkpoint, pages, parts = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local closing, rows = ARGV[8], tonumber(ARGV[9])

if not holds_lease(id, fence) then
  return 'lost'
end
local time = now()
local verdict = renew_lease(id, time, lease)
redis.call('HSET', record(id), 'checkpoint', checkpoint)
if closing ~= '' then
  redis.call('HSET', record(id), 'closing', closing)
else
  redis.call('HDEL', record(id), 'closing')
end
redis.call('HSET', record(id), 'phase', phase_at_work(id))
-- A takeover falls back to fewer parts. Reaching the old number again is not progress: counted as
-- progress, it would hide that every worker dies on this export.
local most = redis.call('HMGET', record(id), 'pages', 'parts')
local most_pages, most_parts = tonumber(most[1] or 0), tonumber(most[2] or 0)
if pages > most_pages or parts > most_parts then
  redis.call('HSET', record(id), 'pages', int(math.max(pages, most_pages)),
    'parts', int(math.max(parts, most_parts)))
  redis.call('HDEL', record(id), 'attempts', 'stalls', 'stalled_since', 'wrong_answers',
    'error', 'unread')
end
advance(id, time, progress, rows)
emit_progress(id, time)
return verdict
