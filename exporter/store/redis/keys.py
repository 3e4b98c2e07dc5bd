"""Names and shapes of all keys in Redis, and the names that Python code uses.

Each name begins with the prefix of the installation in braces, its hash tag: with the default
prefix, the key of an export is `{exporter}:export:{id}`. So all keys of an installation are in one
slot of Redis Cluster, and installations with different prefixes share a database. The list leaves
the prefix out.

Times are microseconds since 1970, by the clock of Redis, unless a line says otherwise. The fields
of an export are listed in `scripts/common.lua`, those of endpoints and deliveries in
`exporter/webhooks/scripts/common.lua`.

  schema                  integer version of these names and shapes; see schema.py
  export:{id}             hash    one export, its fields below
  export:{id}/{place}     hash    one partition of an export, its fields below
  user:{user}             zset    id -> created_at, made unique; all exports of a user
  all                     zset    the same for the exports of all users
  index:{n}:{user}:{value} zset   id -> score of its list; the user's exports with a value
                                  such as state:queued or source:board; n is the length of
                                  the user; with the user "" of all users
  indexed                 hash    id -> user, folded name and values of an export, as JSON
  expiring                zset    id -> time at which the record of an export expires
  stored:{user}           zset    "{bytes} {id}" -> time at which the record expires, inf
                                  until the export ends; the records that count for the
                                  limits of a user; expires with the last of them
  stored_bytes:{user}     integer sum of the bytes in stored:{user}
  users                   zset    user -> next time to trim that user's list of exports
  trim_all                integer next time to trim the list of all users
  trimmed                 hash    user -> score after which the trimming of a list goes on
  roomy                   integer time until which Redis counts as less than half full
  ready:{level}:{user}    zset    id -> time of enqueueing; the ready exports of a user
  tenants:{level}         zset    user -> virtual start of the next slice; users with
                                  ready exports
  served:{level}          zset    user -> virtual start of the next slice, while that is
                                  after the level's virtual time; users without
                                  ready exports
  jumps                   hash    user -> slices claimed while another user waited at a
                                  lower level, since the last claim that passed over no user
  virtual                 hash    level -> virtual time: start of the slice claimed last
  lined                   hash    level -> number of ready exports
  ageing                  zset    id -> since when it is ready at its level, 0 to 8
  running                 hash    user -> number of leases
  leases                  zset    id -> expiry of the lease
  leased                  hash    id -> user for whom the lease was claimed
  waiting                 zset    id -> retry time
  cut                     zset    id -> time of the next check; exports with partitions
  kept                    zset    id -> time to delete the file
  deleted                 zset    id -> since when its objects may be deleted
  wake                    list    "{level} {id}", newest first
  keys                    hash    id of an API key -> digest of the key
  key:{digest}            string  an API key and its plan, as JSON
  account:{key id}        hash    left (credits; missing if the key is not metered),
                                  reserved (for exports that have not ended), used
  session:{digest}        string  a session of the console, as JSON; TTL 12 h
  ticket:{digest}         string  id of the key with which a one-time link signs in; TTL 10 min
  event_ticket:{digest}   string  id of the key of a ticket for one event stream; TTL 60 s
  credited:{nonce}        string  '1' after a charge or grant with this nonce; TTL 60 s
  budget:{source}         string  earliest start of the next request to a source
  budget_workers:{source} string  '1' if a worker has asked for a request of late
  budget_api:{source}     string  earliest start of the API's next request meanwhile
  source:{source}         hash    succeeded_at, failed_at and failure (the status, 0 without an
                                  answer) of the latest requests; TTL 30 days
  source_hour:{hour}:{source} hash  ok, limited, failed, and the number of answers by duration
                                  (see source_statistics.py), in an hour since 1970; TTL 3 h
  rate:{name}             list    times of the counted requests in a rate limit window
  claim:{nonce}           string  "{clean} {id}", the answer to a claim of an export; or
                                  the id of a claimed delivery; TTL 60 s
  idempotency:{digest}    string  "{fingerprint} {id}", the export that a user's
                                  idempotency key created; TTL 24 h by default
  since                   integer time at which the first export was created
  walk                    string  position at which the last bucket cleanup stopped
  counters                hash    name of a counter -> count since the first export
  listeners               hash    user -> " {event} … ", the events that the user's
                                  registered endpoints subscribe to
  outbox                  list    "{event} {time} {sequence} {progress} {rows} {id}",
                                  events of exports and endpoints, oldest first
  outbox_aside            zset    event that could not be read -> time of the next try
  outbox_tries            hash    event -> number of times that it could not be read
  ring                    list    one entry if the webhook senders have new work
  endpoint:{id}           hash    one webhook endpoint; see webhooks/common.lua
  endpoints:{user}        zset    id -> created_at; all endpoints of a user
  registered:{user}       set     ids of endpoints registered for all exports of a user
  delivery:{id}           hash    one event to be delivered to one endpoint
  deliveries:{endpoint}   zset    delivery -> created_at, made unique
  told:{export}           zset    delivery -> created_at, made unique
  dead:{user}             zset    delivery -> time at which it was given up, made unique
  kept_deliveries:{user}  zset    delivery -> created_at
  listening               zset    listener -> time at which it is deleted; listeners are
                                  endpoints whose owners take their deliveries
  tests:{endpoint}        list    the latest deliveries of webhook.test, newest first
  due:{endpoint}          zset    delivery -> time of its next attempt, unless another
                                  delivery must finish first
  order:{endpoint}:{export} zset  delivery -> sequence; unfinished deliveries of an
                                  ordered endpoint
  progress:{endpoint}     hash    export -> the delivery of its latest progress event
  turns:{fast or slow}    zset    user -> time of the next turn; users with endpoints to
                                  be served
  turn:{user}             string  time of the user's latest turn; TTL 60 s
  lane:{speed}:{user}     zset    endpoint -> time from which it can be served
  lane:{speed}            zset    the same for endpoints of all users, as scheduled by
                                  earlier versions
  attempts:{user}         zset    delivery -> expiry of the lease of its attempt
  delivering              hash    endpoint -> number of attempts in flight; begins at 10^9
                                  for a listener, which senders therefore never serve
  delivery_leases         zset    delivery -> expiry of the lease of its attempt
  workers:{host}:{pid}    string  presence of a worker, with a TTL
  senders:{host}:{pid}    string  presence of a webhook sender, with a TTL
  beats:{host}:{pid}      string  presence of a scheduler, with a TTL
  alive                   zset    "{workers, senders or beats}:{host}:{pid}" -> time in seconds
                                  until which the process counts as live, by its own clock
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class KeyNames:
    """Names of the keys of one installation: no two prefixes have a name in common.

    A prefix has no braces; the settings check that.
    """

    prefix: str
    root: str = field(init=False)
    """Beginning of all names, with the hash tag: `{exporter}:`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", f"{{{self.prefix}}}:")

    def __call__(self, name: str, *parts: str) -> str:
        """Returns the key of that name: the prefix, the name, and the parts, joined by colons.

        >>> KeyNames("exporter")("export", "0f3a")
        '{exporter}:export:0f3a'
        """
        return self.root + ":".join((name, *parts))

    def index(self, user_id: str, value: str) -> str:
        """Returns the key of the sorted set of exports with a value; user "": of all users.

        >>> KeyNames("exporter").index("ann", "state:queued")
        '{exporter}:index:3:ann:state:queued'
        """
        return self("index", str(len(user_id.encode())), user_id, value)


DEFAULT = KeyNames("exporter")
"""Names of an installation that sets no prefix."""
WORKERS, SENDERS, BEATS = "workers", "senders", "beats"
"""Names of the presence keys of workers, webhook senders and schedulers."""
