"""The SQL statements of a table source: they read an owner's rows in the order of their key."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from exporter.contracts import timestamps
from exporter.core.checkpoints import Row
from exporter.errors import SourceRefused
from exporter.sources.sql import values as sql_values
from exporter.sources.sql.config import SqlConfig
from exporter.sources.sql.database import Database, Missing
from exporter.sources.sql.values import Reader, RowWriter

Key = int | str
"""The value of a row's key column, in the form in which a cursor stores it."""

_DELETED = "deleted_at"
_CREATED = "created_at"
_MOMENTS = (
    "applied_at", "interview_at", "offer_at", "rejected_at", "scraped_at", "created_at",
    "updated_at",
)  # fmt: skip
_READERS: Mapping[str, Reader] = {
    "is_remote": sql_values.to_bool,
    "tags": sql_values.to_raw_list,
    **dict.fromkeys(_MOMENTS, sql_values.to_utc),
}
"""The conversion of a column's values, by column name.

It is needed for SQLite, which has no types for booleans, times and lists.
"""
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


class Shape(NamedTuple):
    """The columns that a statement selects, and the writer that turns their values into a row."""

    selected: Sequence[sa.ColumnElement[Any]]
    """The key column, followed by the requested columns."""
    write: RowWriter


class _Schema(NamedTuple):
    clause: sa.TableClause
    key: sa.ColumnClause[Any]
    types: Mapping[str, sa.types.TypeEngine[Any]]


class Table:
    """A table of a database; its columns are looked up once, on first use.

    Rows whose `deleted_at` is set are never read. All methods raise the errors of
    `Database.reading`. They raise Missing if the configuration or a query names a column that the
    table does not have.
    """

    def __init__(self, database: Database, config: SqlConfig) -> None:
        self._database = database
        self._config = config
        self._lock = threading.Lock()
        self._loaded: _Schema | None = None

    def shape(self, columns: Sequence[str]) -> Shape:
        """Returns the columns to select for these names, and the writer of their rows."""
        facts = self._schema()
        selected: list[sa.ColumnElement[Any]] = [facts.key]
        readers: dict[str, Reader] = {}
        for name in columns:
            column: sa.ColumnElement[Any] = self._column(name, "columns")
            kind = facts.types[name]
            if isinstance(kind, sa.JSON):
                # Selected as text, because drivers parse JSON and lose digits of numbers.
                column = sa.cast(column, sa.Text)
                readers[name] = sql_values.to_raw_json
            elif name in _READERS:
                readers[name] = _READERS[name]
            elif isinstance(kind, sa.Boolean):
                readers[name] = sql_values.to_bool
            elif isinstance(kind, sa.DateTime):
                readers[name] = sql_values.to_utc
            elif isinstance(kind, sa.Numeric):
                readers[name] = sql_values.to_finite
            selected.append(column)
        return Shape(selected, RowWriter(columns, readers))

    def count(self, connection: sa.Connection, query: Mapping[str, Any]) -> int:
        """Returns the number of rows that match the query.

        Raises SourceRefused if the key is null in some of these rows.
        """
        facts = self._schema()
        counts = sa.func.count(), sa.func.count(facts.key)
        statement = sa.select(*counts).select_from(facts.clause).where(*self._matching(query))
        total, keyed = connection.execute(statement).one()
        if total != keyed:
            raise SourceRefused(
                f"{total - keyed} rows have no {facts.key.name!r} and cannot be read in its order: "
                "name another column as the source's `key`, or fill the column"
            )
        return int(total)

    def last_key(self, connection: sa.Connection, query: Mapping[str, Any]) -> Key | None:
        """Returns the highest key of the rows that match the query; None if no row matches."""
        # ORDER BY instead of max(), which PostgreSQL does not have for UUIDs.
        key = self._schema().key
        statement = sa.select(key).where(*self._matching(query)).order_by(key.desc()).limit(1)
        found = connection.execute(statement).scalar()
        return None if found is None else self._cursor_key(found)

    def page(
        self,
        connection: sa.Connection,
        shape: Shape,
        query: Mapping[str, Any],
        *,
        size: int,
        after: Key | None = None,
        last: Key | None = None,
        skip: int = 0,
    ) -> tuple[Sequence[Row], Key | None]:
        """Returns at most `size` matching rows in the order of their key, and the last row's key.

        Only rows with a key above `after` and up to `last` are read, and the first `skip` of these
        are left out. In place of the key, None is returned if no further row follows. Raises
        SourceRefused if the last row and the row after it have the same key.
        """
        key = self._schema().key
        statement = sa.select(*shape.selected).where(*self._matching(query))
        if after is not None:
            statement = statement.where(key > _bind(after))
        if last is not None:
            statement = statement.where(key <= _bind(last))
        # One row more than wanted shows whether more rows follow.
        statement = statement.order_by(key).limit(size + 1)
        found = connection.execute(statement.offset(skip) if skip else statement).all()
        rows = [shape.write(values) for _, *values in found[:size]]
        if len(found) <= size:
            return rows, None
        if found[size - 1][0] == found[size][0]:
            raise SourceRefused(
                f"two rows have {found[size][0]!r} in {key.name!r}, so reading by this key would "
                "lose rows: name a column with distinct values as the source's `key`"
            )
        return rows, self._cursor_key(found[size - 1][0])

    def lookup(
        self,
        connection: sa.Connection,
        shape: Shape,
        query: Mapping[str, Any],
        ids: Sequence[str],
    ) -> Mapping[str, Row]:
        """Returns the rows with these ids, by the requested id; ids without a row are left out."""
        facts = self._schema()
        wanted = _keys(ids, facts.types[facts.key.name])
        among = facts.key.in_(_bind(list(wanted), expanding=True))
        statement = sa.select(*shape.selected).where(*self._matching(query), among)
        found = connection.execute(statement).all() if wanted else ()
        return {wanted[key]: shape.write(values) for key, *values in found}

    def _schema(self) -> _Schema:
        with self._lock:
            if self._loaded is None:
                config = self._config
                schema, _, name = config.table.rpartition(".")
                types = self._database.columns(schema or None, name)
                columns: list[sa.ColumnClause[Any]] = [sa.column(one) for one in types]
                clause = sa.table(name, *columns, schema=schema or None)
                _require_column(types, config, config.key, "key")
                _require_column(types, config, config.owner, "owner")
                self._loaded = _Schema(clause, clause.c[config.key], types)
            return self._loaded

    def _column(self, name: str, setting: str) -> sa.ColumnClause[Any]:
        facts = self._schema()
        _require_column(facts.types, self._config, name, setting)
        return facts.clause.c[name]

    def _matching(self, query: Mapping[str, Any]) -> Iterator[sa.ColumnElement[bool]]:
        facts = self._schema()
        yield self._column(self._config.owner, "owner") == _bind(query["user_id"])
        if _DELETED in facts.types:
            yield facts.clause.c[_DELETED].is_(None)
        for name in ("status", "source"):
            if name in query:
                yield self._column(name, "columns").in_(_bind(query[name], expanding=True))
        for name in ("from", "to"):
            if name in query:
                column: sa.ColumnElement[Any] = self._column(_CREATED, "columns")
                edge: sa.ColumnElement[Any] = _bind(self._bound_value(query[name]))
                if self._database.is_sqlite:
                    # SQLite stores times as text, in several formats.
                    column, edge = sa.func.julianday(column), sa.func.julianday(edge)
                yield column >= edge if name == "from" else column < edge

    def _bound_value(self, text: str) -> str | datetime:
        if self._database.is_sqlite:
            return text
        moment = timestamps.parse(text)
        aware = getattr(self._schema().types[_CREATED], "timezone", False)
        return moment if aware else moment.replace(tzinfo=None)

    def _cursor_key(self, key: Any) -> Key:
        if isinstance(key, uuid.UUID):
            return str(key)
        if isinstance(key, (int, str)):
            return key
        raise SourceRefused(
            f"the key {self._config.key!r} has the type {type(key).__name__}: name a column of "
            "integers, texts or UUIDs as the source's `key`"
        )


def _require_column(types: Mapping[str, Any], config: SqlConfig, name: str, setting: str) -> None:
    if name not in types:
        # The existing columns are not listed, because users see the error of their export.
        raise Missing(
            f"table {config.table!r} has no column {name!r}: correct `{setting}` of the source"
        )


def _bind(value: Any, *, expanding: bool = False) -> sa.BindParameter[Any]:
    # Without a type, PostgreSQL infers the type of the column: UUID, enumeration or text.
    return sa.bindparam(None, value, type_=sa.types.NULLTYPE, unique=True, expanding=expanding)


def _keys(ids: Sequence[str], kind: sa.types.TypeEngine[Any]) -> dict[Any, str]:
    """Returns the given ids by key: each id, converted to the type of the key column.

    An id that cannot be a key of that type is left out.
    """
    if isinstance(kind, sa.Integer):
        return {int(one): one for one in ids if _INTEGER.fullmatch(one)}
    if not isinstance(kind, sa.Uuid):
        return {one: one for one in ids}
    found: dict[Any, str] = {}
    for one in ids:
        try:
            found[uuid.UUID(one)] = one
        except ValueError:
            continue
    return found
