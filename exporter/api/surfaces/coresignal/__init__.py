"""The Coresignal contract: postings collected in bulk, by filters or by ids, as gzipped JSON Lines.

An export is called a "data request" here. The older and the current paths work side by side, each
also under the vendor's base path /cdapi; `data_requests.Version` has the differences.

The vendor publishes no endpoint that lists data requests, shows their state or cancels them. A data
request is an export, so the endpoints of other contracts do this under the same id. The headers
Idempotency-Key, X-Data-Request-Id and Range and the field `unknown_ids_file` are our additions.
"""

from __future__ import annotations

from exporter.api.error_shapes import TEXT
from exporter.api.surface import Surface
from exporter.api.surfaces.coresignal import data_requests, files

SURFACE = Surface(
    name="coresignal",
    tag="coresignal",
    description="The Coresignal contract: postings in bulk, as files of gzipped JSON Lines.",
    prefixes=("/cdapi/", "/v1/professional_network/", "/v1/bulk_collect/", "/v2/data_requests/"),
    errors=TEXT,
    operations=(*data_requests.OPERATIONS, *files.OPERATIONS),
    extras="name",
    default_source="coresignal",
)
