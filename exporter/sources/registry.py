"""The types of sources.

How to add a source, in one file and one line of TYPES:

1. Write a module here, with a class that has the methods of `base.Source`. A page depends only on
   query and cursor. Filters that other modules need, too, go to `exporter/contracts/`.
2. Write its settings there: a subclass of `config.SourceConfig`, or of `HttpConfig` for the API of
   a vendor, with `type`, its own keys, and `make`. A key of the type `Secret` is shown in no error.
3. State in it what differs from the defaults: `rate`, `feature`, `documented_columns`. An import
   that is slow or optional belongs into `make`.
4. Add the class to TYPES. The TOML file, its errors and the contract suite read it from there;
   `tests/contract/test_sources.py` asks for rows to read.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.sources.bindbee import BindbeeConfig
from exporter.sources.config import SourceConfig
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.hirebase import HirebaseConfig
from exporter.sources.qwestly import QwestlyConfig
from exporter.sources.sql.config import SqlConfig

TYPES: Mapping[str, type[SourceConfig]] = {
    config.name(): config
    for config in (
        BindbeeConfig,
        CoresignalConfig,
        HirebaseConfig,
        QwestlyConfig,
        SqlConfig,
    )
}
"""The settings of each type of source, by the name of the type."""
