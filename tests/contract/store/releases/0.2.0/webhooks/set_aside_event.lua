-- set_aside_event(message id or whole entry) -> number of tries so far, 0 if the event is not the
--   oldest; negative if the event was dropped
--
-- Moves the oldest event out of the outbox, because a sender could not read it or its record. A
-- sweep moves the event back after a wait that doubles with each try; after MAX_EVENT_TRIES the
-- event is dropped. The first write only removes, so this works in a full Redis.
local mark = ARGV[1]

local entry = redis.call('LINDEX', 'exporter:outbox', 0)
if not entry or (mark ~= entry and mark ~= message_of(entry)) then
  return 0
end
redis.call('LPOP', 'exporter:outbox')
local tries = redis.call('HINCRBY', 'exporter:outbox_tries', entry, 1)
if tries >= MAX_EVENT_TRIES then
  redis.call('HDEL', 'exporter:outbox_tries', entry)
  count('events_dropped')
  return -tries
end
count('events_set_aside')
redis.call('ZADD', 'exporter:outbox_aside', int(now() + EVENT_WAIT_MICROS * 2 ^ (tries - 1)), entry)
return tries
