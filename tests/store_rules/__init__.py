"""A proxy before a real S3 that enforces the rules of another store: R2, B2, and two more.

The local stack has one S3 server, SeaweedFS, which is lenient. The proxy passes requests on to it
and refuses those that the other store refuses, with that store's status, code and text. Profiles
(`tests.store_rules.rules.PROFILES`): `r2`, `b2`, `ceph`, `virtual`, `encrypted`, `encrypted-kms`.
Their rules, and where they are documented, are in `rules`.

The proxy holds no state: the sizes of parts are asked of the real store when an upload is
completed. Bodies are passed on in pieces, so its memory does not grow. It checks the signature of
each request and link at the address that the client used, as the real store would, and signs again
for the server behind it. Chunked signatures (`STREAMING-…`) are not understood.

In a test, as a context manager or by the fixture `ruled` of tests/integration/s3_stores:

    with StoreRules("r2", s3.endpoint_url, s3.access_key, s3.secret_key) as store:
        storage = S3Storage(bucket, endpoint_url=store.url, ...)
    assert store.refused == []        # (operation, code) of each refusal

For a fleet of processes, start it in the test's own process as above, or as a process of its own,
and give `store.url` to the processes as EXPORTER_S3_ENDPOINT_URL, with the keys of the real store:

    AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… \
        python -m tests.store_rules r2 --upstream http://127.0.0.1:8333 --port 9100

The proxy listens on 127.0.0.1. For virtual-hosted addresses use `store.virtual_url`
(`http://localhost:PORT`, so that the bucket's host is `BUCKET.localhost`) within
`resolve.localhost()`: not every system resolves names below localhost.
"""

from __future__ import annotations

from tests.store_rules.proxy import StoreRules

__all__ = ["StoreRules"]
