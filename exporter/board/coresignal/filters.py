"""The Coresignal contract's filters as conditions on the board's tables."""

from __future__ import annotations

import functools
import sqlite3

from exporter.board import coresignal_records, expressions, words
from exporter.board.coresignal_records import site
from exporter.board.expressions import Expression, Term
from exporter.board.postings import label_key
from exporter.board.search import Condition, all_of, any_of
from exporter.contracts.coresignal import JobFilters

TABLES = "coresignal JOIN postings USING (number)"
"""What the conditions are true or false of."""
TEXTS = {
    "company_name": "company",
    "location": "location",
    "country": "coalesce((SELECT country FROM places"
    " WHERE places.number = postings.number AND place = 0), '')",
    "industry": "industry",
}
"""Where the words of a text filter are looked for, by filter."""


def condition(filters: JobFilters) -> Condition:
    """What a posting has to meet: every filter. Raises expressions.Wrong.

    - Texts are expressions: see expressions.parse. `keyword_description` is looked for in all that
      the board calls keywords: description, requirements, technologies, skills and benefits.
    - An employment type is compared whole, in any spelling of it (`Full-time`, `full time`).
    - The country is that of the posting's first place, as its record says.
    - `company_domain` is the host of the company's site, `company_exact_website` its whole address,
      `company_professional_network_url` the `company_url` of the record.
    - All times of a record are the posting's day, and one without a day meets no bound.
    - No posting of the board is deleted.
    """
    found = [
        moment(operator, bound)
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
        found.append(titled(filters.title))
    if filters.employment_type is not None:
        found.append(employed(filters.employment_type))
    if filters.company_id is not None:
        found.append(Condition("company_id(company) = ?", (filters.company_id,)))
    if filters.company_domain is not None:
        host = site(filters.company_domain).partition("/")[0]
        found.append(Condition("instr(website || '/', ?) = 1", (f"{host}/",)))
    if filters.company_exact_website is not None:
        found.append(Condition("website = ?", (site(filters.company_exact_website),)))
    if filters.company_professional_network_url is not None:
        wanted = site(filters.company_professional_network_url)
        home = site(coresignal_records.PROFILES) + "/"
        found.append(Condition("company_slug <> '' AND ? || company_slug = ?", (home, wanted)))
    for name, column in TEXTS.items():
        if (text := getattr(filters, name)) is not None:
            found.append(says(column, text))
    if filters.keyword_description is not None:
        found.append(described(filters.keyword_description))
    return all_of(found)


def moment(operator: str, bound: str) -> Condition:
    """A bound on the time that stands for all times of a record."""
    return Condition(f"(posted <> '' AND posted || ' 00:00:00' {operator} ?)", (bound,))


def says(column: str, text: str) -> Condition:
    """Whether a column says what an expression wants."""
    expressions.parse(text)
    return Condition(f"said(?, {column})", (text,))


def titled(text: str) -> Condition:
    """Whether a title says what an expression wants."""
    return _indexed("titles", _query(expressions.parse(text), phrases=True))


def employed(text: str) -> Condition:
    """Whether the types of employment are what an expression wants."""
    return _employed(expressions.parse(text))


def described(text: str) -> Condition:
    """Whether the keywords say it. Their index knows no order, so phrases are looked for in the
    texts that it finds."""
    wanted = expressions.parse(text)
    found = _indexed("words", _query(wanted, phrases=False))
    if not _has_phrase(wanted):
        return found
    document = "(SELECT json FROM documents WHERE documents.number = postings.number)"
    return all_of([found, Condition(f"keywords_say(?, {document})", (text,))])


def register(connection: sqlite3.Connection) -> None:
    """Makes known to a connection what the conditions call."""
    connection.create_function("said", 2, _said, deterministic=True)
    connection.create_function("company_id", 1, coresignal_records.company_id, deterministic=True)
    connection.create_function("keywords_say", 2, _keywords_say, deterministic=True)


@functools.lru_cache(maxsize=100_000)
def _said(wanted: str, text: str) -> bool:
    return expressions.said(expressions.parse(wanted), text)


def _keywords_say(wanted: str, document: bytes) -> bool:
    return expressions.said(expressions.parse(wanted), coresignal_records.keywords(document))


def _employed(wanted: Expression) -> Condition:
    if isinstance(wanted, Term):
        return Condition("instr(job_types, ?)", (f"|{label_key('job_types', wanted.text)}|",))
    parts = map(_employed, wanted.parts)
    return all_of(parts) if wanted.every else any_of(parts)


def _indexed(table: str, query: str | None) -> Condition:
    if query is None:
        return Condition("0")
    sql = f"number IN (SELECT rowid FROM {table} WHERE {table} MATCH ?)"  # noqa: S608 - literals
    return Condition(sql, (query,))


def _query(wanted: Expression, *, phrases: bool) -> str | None:
    """The expression for a text index; None if no text can meet it."""
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
