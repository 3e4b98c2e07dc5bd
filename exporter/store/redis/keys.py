"""Names and shapes of all keys in Redis, and the names that Python code uses.

Times are microseconds since 1970, by the clock of Redis, unless a line says otherwise. The fields
of an export are listed in `scripts/common.lua`, those of endpoints and deliveries in
`exporter/webhooks/scripts/common.lua`.

  exporter:export:{id}             hash    one export, its fields below
  exporter:export:{id}/{place}     hash    one partition of an export, its fields below
  exporter:user:{user}             zset    id -> created_at, made unique; all exports of a user
  exporter:stored:{user}           zset    "{bytes} {id}" -> time at which the record expires, inf
                                           until the export ends; the records that count for the
                                           limits of a user; expires with the last of them
  exporter:stored_bytes:{user}     integer sum of the bytes in exporter:stored:{user}
  exporter:users                   zset    user -> next time to trim that user's list of exports
  exporter:ready:{level}:{user}    zset    id -> time of enqueueing; the ready exports of a user
  exporter:tenants:{level}         zset    user -> virtual start of the next slice; users with
                                           ready exports
  exporter:served:{level}          zset    user -> virtual start of the next slice, while that is
                                           after the level's virtual time; users without
                                           ready exports
  exporter:jumps                   hash    user -> slices claimed while another user waited at a
                                           lower level, since the last claim that passed nobody over
  exporter:virtual                 hash    level -> virtual time: start of the slice claimed last
  exporter:lined                   hash    level -> number of ready exports
  exporter:ageing                  zset    id -> since when it is ready at its level, 0 to 8
  exporter:running                 hash    user -> number of leases
  exporter:leases                  zset    id -> expiry of the lease
  exporter:leased                  hash    id -> user for whom the lease was claimed
  exporter:waiting                 zset    id -> retry time
  exporter:cut                     zset    id -> time of the next check; exports with partitions
  exporter:kept                    zset    id -> time to delete the file
  exporter:deleted                 zset    id -> since when its objects may be deleted
  exporter:wake                    list    "{level} {id}", newest first
  exporter:keys                    hash    id of an API key -> digest of the key
  exporter:key:{digest}            string  an API key and its plan, as JSON
  exporter:account:{key id}        hash    left (credits; missing if the key is not metered),
                                           reserved (for exports that have not ended), used
  exporter:credited:{nonce}        string  '1' after a charge or grant with this nonce; TTL 60 s
  exporter:budget:{source}         string  earliest start of the next request to a source
  exporter:budget_workers:{source} string  '1' if a worker has asked for a request of late
  exporter:budget_api:{source}     string  earliest start of the API's next request meanwhile
  exporter:rate:{name}             list    times of the counted requests in a rate limit window
  exporter:claim:{nonce}           string  "{clean} {id}", the answer to a claim of an export; or
                                           the id of a claimed delivery; TTL 60 s
  exporter:idempotency:{digest}    string  "{fingerprint} {id}", the export that a user's
                                           idempotency key created; TTL 24 h by default
  exporter:since                   integer time at which the first export was created
  exporter:walk                    string  position at which the last bucket cleanup stopped
  exporter:counters                hash    name of a counter -> count since the first export
  exporter:listeners               hash    user -> " {event} … ", the events that the user's
                                           registered endpoints subscribe to
  exporter:outbox                  list    "{event} {time} {sequence} {progress} {rows} {id}",
                                           events of exports and endpoints, oldest first
  exporter:outbox_aside            zset    event that could not be read -> time of the next try
  exporter:outbox_tries            hash    event -> number of times that it could not be read
  exporter:ring                    list    one entry if the webhook senders have new work
  exporter:endpoint:{id}           hash    one webhook endpoint; see webhooks/common.lua
  exporter:endpoints:{user}        zset    id -> created_at; all endpoints of a user
  exporter:registered:{user}       set     ids of endpoints registered for all exports of a user
  exporter:delivery:{id}           hash    one event to be delivered to one endpoint
  exporter:deliveries:{endpoint}   zset    delivery -> created_at, made unique
  exporter:told:{export}           zset    delivery -> created_at, made unique
  exporter:dead:{user}             zset    delivery -> time at which it was given up, made unique
  exporter:kept_deliveries:{user}  zset    delivery -> created_at
  exporter:tests:{endpoint}        list    the latest deliveries of webhook.test, newest first
  exporter:due:{endpoint}          zset    delivery -> time of its next attempt, unless another
                                           delivery must finish first
  exporter:order:{endpoint}:{export} zset  delivery -> sequence; unfinished deliveries of an
                                           ordered endpoint
  exporter:progress:{endpoint}     hash    export -> the delivery of its latest progress event
  exporter:turns:{fast or slow}    zset    user -> time of the next turn; users with endpoints to
                                           be served
  exporter:turn:{user}             string  time of the user's latest turn; TTL 60 s
  exporter:lane:{speed}:{user}     zset    endpoint -> time from which it can be served
  exporter:lane:{speed}            zset    the same for endpoints of all users, as scheduled by
                                           earlier versions
  exporter:attempts:{user}         zset    delivery -> expiry of the lease of its attempt
  exporter:delivering              hash    endpoint -> number of attempts in flight
  exporter:delivery_leases         zset    delivery -> expiry of the lease of its attempt
  exporter:workers:{host}:{pid}    string  presence of a worker, with a TTL
  exporter:senders:{host}:{pid}    string  presence of a webhook sender, with a TTL
  exporter:beats:{host}:{pid}      string  presence of a scheduler, with a TTL
"""

from __future__ import annotations

WORKERS = "exporter:workers:"
"""Prefix of the presence keys of workers."""
SENDERS = "exporter:senders:"
"""Prefix of the presence keys of webhook senders."""
BEATS = "exporter:beats:"
"""Prefix of the presence keys of schedulers."""


def export(export_id: str) -> str:
    """Returns the key of an export's record, or of a partition's."""
    return f"exporter:export:{export_id}"
