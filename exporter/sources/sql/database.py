"""Read-only access to a database, in transactions that see one state of the data."""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
import structlog
from sqlalchemy import exc

from exporter.core import public_text
from exporter.errors import ConfigurationError, SourceError, SourceRefused, SourceUnavailable

log = structlog.get_logger()

MAX_CONNECT_SECONDS = 10
MAX_STATEMENT_SECONDS = 300
"""Time limit of one statement; it is also the upper limit of `page_timeout`."""
MAX_CONNECTIONS = 16


class Missing(ConfigurationError, SourceRefused):
    """The database lacks a table or a column that the configuration names."""


class Database:
    """The database at a URL; no connection is opened before `reading` is first used.

    No error text contains the URL's password. The constructor raises ConfigurationError for an
    invalid URL and for a driver that is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
            if parsed.drivername in ("postgres", "postgresql"):
                parsed = parsed.set(drivername="postgresql+psycopg")
            self._url = parsed
            self._engine = _engine(parsed)
        except (exc.ArgumentError, exc.NoSuchModuleError, ValueError) as error:
            # The text of the error may quote the URL.
            text = f"url is not a database URL that SQLAlchemy knows: {type(error).__name__}"
            raise ConfigurationError(text) from None
        except ImportError as error:
            text = f"url needs a driver that is not installed ({error}): use postgresql+psycopg"
            raise ConfigurationError(text) from None

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yields a read-only connection; all its statements see the same state of the database.

        Database errors in the block are translated: SourceUnavailable is raised if the database
        does not answer now, and SourceRefused for an error that a retry cannot help.
        """
        try:
            with self._engine.connect() as connection:
                if self.is_sqlite:
                    connection.exec_driver_sql("BEGIN")
                elif self._engine.dialect.name == "postgresql":
                    limit = f"SET LOCAL statement_timeout = '{MAX_STATEMENT_SECONDS}s'"
                    connection.exec_driver_sql(limit)
                yield connection
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise self._named(
                SourceUnavailable(f"{self._label} did not answer: {self._driver_text(error)}")
            ) from None
        except exc.DBAPIError as error:
            raise self._named(
                SourceRefused(f"{self._label} refused: {self._driver_text(error)}")
            ) from None

    def columns(self, schema: str | None, table: str) -> dict[str, sa.types.TypeEngine[Any]]:
        """Returns the columns of a table or view: the type of each column by its name.

        Raises Missing if there is no such table or view.
        """
        with self.reading() as connection:
            try:
                found = sa.inspect(connection).get_columns(table, schema)
            except exc.NoSuchTableError:
                text = f"{self._label} has no table {table!r}: correct `table` of the source"
                raise Missing(text) from None
        return {column["name"]: column["type"] for column in found}

    def close(self) -> None:
        """Closes the connections that are not in use."""
        self._engine.dispose()

    @property
    def _label(self) -> str:
        return f"the {self._engine.dialect.name} database"

    def _named(self, error: SourceError) -> SourceError:
        """Returns the error after logging it with the host or file, which its text does not name.

        Users see the text.
        """
        error.upstream = self._url.host or self._url.database
        log.warning("source.failed", upstream=error.upstream, reason=str(error))
        return error

    def _driver_text(self, error: exc.SQLAlchemyError) -> str:
        """Returns the driver's text in one line, without the URL's password, host, user and file.

        SQLAlchemy's own text is not used, because it contains the statement and its values.
        """
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        for part in (self._url.password, self._url.host, self._url.database):
            said = re.sub(rf"(?<!\w){re.escape(str(part))}(?!\w)", "***", said) if part else said
        said = re.sub(r'\b(user|role|database) "[^"]*"', r"\1 ***", said)
        return public_text.without_addresses(said)


def interrupt(connection: sa.Connection) -> None:
    """Cancels the statement that another thread is running on the connection.

    In that thread, the call that runs the statement raises an error.
    """
    driver: Any = connection.connection.driver_connection
    stop = getattr(driver, "cancel", None) or getattr(driver, "interrupt", None)
    if stop is not None:
        stop()


def _engine(url: sa.URL) -> sa.Engine:
    sizes = {"pool_size": MAX_CONNECTIONS, "max_overflow": 0, "pool_timeout": MAX_CONNECT_SECONDS}
    if url.get_backend_name() == "sqlite":
        if not url.database or url.query:
            raise ConfigurationError(
                "url must name a file, without parameters: write sqlite:///relative/path or "
                "sqlite:////absolute/path"
            )
        return sa.create_engine(
            "sqlite://",
            creator=lambda: _sqlite(url.database or ""),
            poolclass=sa.QueuePool,
            # The driver must not begin transactions, because `reading` begins them.
            isolation_level="AUTOCOMMIT",
            **sizes,
        )
    arguments: dict[str, Any] = {}
    if url.drivername == "postgresql+psycopg":
        # Connection poolers such as PgBouncer lose prepared statements.
        arguments = {"prepare_threshold": None, "application_name": "exporter"}
        if "connect_timeout" not in url.query:
            arguments["connect_timeout"] = MAX_CONNECT_SECONDS
    return sa.create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
        **sizes,
    )


def _sqlite(path: str) -> sqlite3.Connection:
    # mode=rw, because a plain open creates a missing file, and mode=ro cannot read a database in
    # WAL mode that no other process has open.
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw",
        uri=True,
        timeout=MAX_CONNECT_SECONDS,
        check_same_thread=False,
    )
    connection.execute("PRAGMA query_only = ON")
    connection.text_factory = _text
    return connection


# Text may be invalid UTF-8. A partial of `str` is fast; it is called for each cell.
_text = functools.partial(str, encoding="utf-8", errors="surrogateescape")
