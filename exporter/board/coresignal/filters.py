"""Translates the Coresignal contract's filters into conditions on the board's tables."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator

from exporter.board import coresignal_records, expressions, words
from exporter.board.coresignal_records import normalize_site
from exporter.board.expressions import Expression, Term
from exporter.board.postings import label_key
from exporter.board.search import Condition, all_of, any_of
from exporter.contracts.coresignal import JobFilters

TEXT_COLUMNS = {
    "company_name": "company",
    "location": "location",
    "country": "coalesce((SELECT country FROM places"
    " WHERE places.number = postings.number AND place = 0), '')",
    "industry": "industry",
}
"""Maps the name of a text filter to the SQL expression for the text that it searches."""


def condition(filters: JobFilters) -> Condition:
    """Returns the condition that a posting must meet: all filters at once.

    - Text filters are expressions: see expressions.parse. `keyword_description` searches the
      description, requirements, technologies, skills and benefits.
    - An employment type must match as a whole, in any spelling (`Full-time`, `full time`).
    - The country is that of the posting's first place, as in its record.
    - `company_domain` is the host of the company's site, `company_exact_website` the site's whole
      address, `company_professional_network_url` the `company_url` of the record.
    - Every time in a record is the posting's day. A posting without a day matches no time bound.
    - No posting of the board is deleted, so `deleted: true` matches nothing.

    Raises expressions.InvalidExpression for an invalid text filter.
    """
    found = [
        time_bound(operator, bound)
        for operator, bound in (
            (">=", filters.created_at_gte),
            ("<=", filters.created_at_lte),
            (">=", filters.last_updated_gte),
            ("<=", filters.last_updated_lte),
        )
        if bound is not None
    ]
    if filters.application_active is not None:
        found.append(Condition("NOT expired" if filters.application_active else "expired"))
    if filters.deleted:
        found.append(Condition("0"))
    if filters.title is not None:
        found.append(title_contains(filters.title))
    if filters.employment_type is not None:
        found.append(employment_type_is(filters.employment_type))
    if filters.company_id is not None:
        found.append(Condition("company_id(company) = ?", (filters.company_id,)))
    if filters.company_domain is not None:
        host = normalize_site(filters.company_domain).partition("/")[0]
        found.append(Condition("instr(website || '/', ?) = 1", (f"{host}/",)))
    if filters.company_exact_website is not None:
        found.append(Condition("website = ?", (normalize_site(filters.company_exact_website),)))
    if filters.company_professional_network_url is not None:
        wanted = normalize_site(filters.company_professional_network_url)
        home = normalize_site(coresignal_records.PROFILE_URL_PREFIX) + "/"
        found.append(Condition("company_slug <> '' AND ? || company_slug = ?", (home, wanted)))
    for name, column in TEXT_COLUMNS.items():
        if (text := getattr(filters, name)) is not None:
            found.append(text_contains(column, text))
    if filters.keyword_description is not None:
        found.append(keywords_contain(filters.keyword_description))
    return all_of(found)


def time_bound(operator: str, bound: str) -> Condition:
    """Returns the condition that the posting's day meets a bound such as `>= 2026-01-31 00:00:00`.

    The day counts as its midnight, because a record has no other time. A posting without a day does
    not meet the condition.
    """
    return Condition(f"(posted <> '' AND posted || ' 00:00:00' {operator} ?)", (bound,))


def text_contains(column: str, text: str) -> Condition:
    """Returns the condition that the text in a column matches a filter (see expressions.parse)."""
    expressions.parse(text)
    return Condition(f"text_contains(?, {column})", (text,))


def title_contains(text: str) -> Condition:
    """Returns the condition that a posting's title matches a filter (see expressions.parse)."""
    return _indexed("titles", _query(expressions.parse(text), phrases=True))


def employment_type_is(text: str) -> Condition:
    """Returns the condition that a posting's employment types match a filter.

    Each term of the filter must equal one of the employment types, in any spelling.
    """
    return _employment_type_is(expressions.parse(text))


def keywords_contain(text: str) -> Condition:
    """Returns the condition that a posting's keyword texts match a filter (see expressions.parse).

    The keyword index stores no word positions, so a phrase is checked in the documents of the
    postings that the index finds.
    """
    wanted = expressions.parse(text)
    found = _indexed("words", _query(wanted, phrases=False))
    if not _has_phrase(wanted):
        return found
    document = "(SELECT json FROM documents WHERE documents.number = postings.number)"
    return all_of([found, Condition(f"keywords_contain(?, {document})", (text,))])


def find(connection: sqlite3.Connection, wanted: Condition) -> Iterator[int]:
    """Yields the record ids of the postings that meet a condition, in ascending order."""
    connection.create_function("text_contains", 2, _text_contains, deterministic=True)
    connection.create_function("company_id", 1, coresignal_records.company_id, deterministic=True)
    connection.create_function("keywords_contain", 2, _keywords_contain, deterministic=True)
    rows = connection.execute(
        "SELECT record_id FROM coresignal JOIN postings USING (number)"  # noqa: S608 - values bound
        f" WHERE {wanted.sql} ORDER BY record_id",
        wanted.values,
    )
    return (number for (number,) in rows)


@functools.lru_cache(maxsize=100_000)
def _text_contains(wanted: str, text: str) -> bool:
    return expressions.contained_in(expressions.parse(wanted), text)


def _keywords_contain(wanted: str, document: bytes) -> bool:
    return expressions.contained_in(
        expressions.parse(wanted), coresignal_records.keywords(document)
    )


def _employment_type_is(wanted: Expression) -> Condition:
    if isinstance(wanted, Term):
        return Condition("instr(job_types, ?)", (f"|{label_key('job_types', wanted.text)}|",))
    parts = map(_employment_type_is, wanted.parts)
    return all_of(parts) if wanted.every else any_of(parts)


def _indexed(table: str, query: str | None) -> Condition:
    if query is None:
        return Condition("0")
    sql = f"number IN (SELECT rowid FROM {table} WHERE {table} MATCH ?)"  # noqa: S608 - literals
    return Condition(sql, (query,))


def _query(wanted: Expression, *, phrases: bool) -> str | None:
    """Converts an expression to an FTS5 query; returns None if no text can match the expression.

    With `phrases` false, the words of a phrase may be anywhere in the text.
    """
    if isinstance(wanted, Term):
        tokens = words.tokens(wanted.text)
        if not tokens:
            return None
        if wanted.exact and phrases:
            return f'"{" ".join(tokens)}"'
        return "(" + " AND ".join(f'"{token}"' for token in tokens) + ")"
    queries = [_query(part, phrases=phrases) for part in wanted.parts]
    known = [query for query in queries if query is not None]
    if not known or (wanted.every and len(known) < len(queries)):
        return None
    return f"({(' AND ' if wanted.every else ' OR ').join(known)})"


def _has_phrase(wanted: Expression) -> bool:
    if isinstance(wanted, Term):
        return wanted.exact and len(words.tokens(wanted.text)) > 1
    return any(map(_has_phrase, wanted.parts))
