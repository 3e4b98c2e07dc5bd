"""Profile `friendly`: plausible synthetic postings, for people who try the service.

Every column has one type, so that pandas, DuckDB and spreadsheets read a CSV without help. No
posting is expired, so that a search without filters finds every row; those that expired have left
the board.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar

import orjson

from exporter.board import postings
from exporter.board.occupations import CITIES, GRADES, KINDS, NAMES, ROLES, SIZES, City, Role

T = TypeVar("T")

MAX_AGE_DAYS = 60
"""Maximum age of a posting; a quarter of the postings are from the last three days."""


_BENEFITS = (
    *("Health insurance", "Dental insurance", "401(k) matching", "Parental leave"),
    *("Learning budget", "Flexible hours", "Home office budget", "Paid volunteer days"),
)
_PERKS = (
    "We offer flexible hours and a budget for learning.",
    "You get health insurance from the first day and 30 days of paid leave.",
    "You choose your own equipment, and we pay for your home office.",
    "We review salaries twice a year and publish the bands.",
)
_DUTIES = (
    "You plan your work with the team every two weeks and show the results.",
    "You work closely with product, design and customer support.",
    "You write down decisions so that others can follow them.",
    "You improve the way we work and share what you learn.",
    "You take part in the on-call rotation about one week in eight.",
    "You help to interview and to welcome new colleagues.",
)
_EDUCATION = ("Bachelor's degree", "Bachelor's degree", "Master's degree", "High school diploma")
_PLACES_OF_WORK = ("Remote", "Remote", "Hybrid", "Hybrid", "In-Person")
_JOB_TYPES = (*("Full-time",) * 8, "Part-time", "Contract")
_TECHNICAL = ("Engineering", "Data", "Design")
_BOARDS = ("Greenhouse", "Lever", "Workday", "Ashby")


class _Example(NamedTuple):
    """Values that a posting is given instead of random ones."""

    title: str
    city: str
    place_of_work: str
    age_days: int
    company: str = ""
    years: tuple[int, int] = (2, 5)


EXAMPLES = (
    _Example("Software Engineer", "San Francisco", "Remote", 0),
    _Example("Data Engineer", "Berlin", "Remote", 0),
    _Example("Civil Engineer", "Richmond", "In-Person", 1, company="CompanyXYZ", years=(1, 6)),
    _Example("Data Engineer", "New York", "Remote", 1),
    _Example("Software Engineer", "Austin", "Remote", 2),
)
"""The first postings: the searches in the vendors' documentation find them, on any board."""


def generate(rows: int, seed: int, today: date) -> Iterator[postings.Posting]:
    """Yields the postings 0 to `rows` - 1 of a seed, in order.

    Posting i depends only on (seed, i), and its date also on `today`.
    """
    roles = [role for role in ROLES for _ in range(role.weight)]
    cities = [city for city in CITIES for _ in range(city.weight)]
    for number in range(rows):
        yield _posting(_Random(seed, number), number, roles, cities, today)


def removed(rows: int, seed: int, today: date) -> Iterator[tuple[str, datetime]]:
    """Yields the ids of postings that left the board, each with the time at which it expired.

    There are two for a hundred rows. They are not among the rows, so that a number of rows is the
    number of postings on every contract.
    """
    midnight = datetime.combine(today, time(), UTC)
    for number in range(rows, rows + rows // 50 + 1):
        rng = _Random(seed, number)
        yield rng.identity, midnight - timedelta(days=rng.chance() ** 2 * MAX_AGE_DAYS)


class _Random:
    """Random choices for one posting."""

    def __init__(self, seed: int, number: int) -> None:
        # Hashes the seed, because a Mersenne Twister starts similarly for similar seeds.
        name = hashlib.blake2b(f"friendly:{seed}:{number}".encode(), digest_size=20).digest()
        # A letter first, so that no program reads an id as a number, such as 12e9.
        self.identity = f"f{name[:12].hex()[1:]}"
        self.chance = random.Random(int.from_bytes(name)).random  # noqa: S311 - not a secret

    def pick(self, values: Sequence[T]) -> T:
        return values[int(self.chance() * len(values))]

    def sample(self, values: Sequence[T], count: int) -> list[T]:
        first = int(self.chance() * len(values))
        return [values[(first + nth) % len(values)] for nth in range(count)]

    def score(self) -> float:
        return round(0.2 + 0.7 * self.chance(), 3)


def _posting(
    rng: _Random, number: int, roles: Sequence[Role], cities: Sequence[City], today: date
) -> postings.Posting:
    role, city, company = rng.pick(roles), rng.pick(cities), rng.pick(_companies())
    grade, level, *years, percent = rng.pick(GRADES)
    place, age = rng.pick(_PLACES_OF_WORK), int(rng.chance() ** 2 * MAX_AGE_DAYS)
    job_type = rng.pick(("Full-time", "Internship") if level == "Entry" else _JOB_TYPES)
    if number < len(EXAMPLES):
        example = EXAMPLES[number]
        role = next(one for one in ROLES if one.title == example.title)
        city = next(one for one in CITIES if one.city == example.city)
        company = _company_xyz() if example.company else company
        grade, level, years, percent = "", "Mid", list(example.years), 100
        place, age, job_type = example.place_of_work, example.age_days, "Full-time"
    if not role.ladder:
        grade = ""
        level, years = ("Executive", [8, 15]) if role.title.startswith("Head") else ("Mid", [2, 6])
    title = "Site/Civil Engineer" if company is _company_xyz() else f"{grade}{role.title}"
    pay = role.pay * percent * city.pay // 10_000 * 1000
    skills, slug = rng.sample(role.skills, 3), company["company_slug"]
    where = ", ".join((city.city, city.region, city.country))
    link = f"https://jobs.{slug}.example.com/{rng.identity}"
    visa = number < len(EXAMPLES) or rng.chance() < 0.3
    members: dict[str, Any] = {
        "_id": rng.identity,
        "job_title": title,
        "job_title_raw": title,
        **company,
        "description": _describe(rng, role, company, title, skills, years, place, city),
        "requirements_summary": f"{years[0]} to {years[1]} years of experience; "
        + ", ".join(skills),
        "application_link": link,
        "job_board": rng.pick(_BOARDS),
        "job_board_link": f"https://boards.example.com/{slug}",
        "job_slug": f"{title.lower().replace('/', '-').replace(' ', '-')}-{rng.identity[:8]}",
        "job_type": job_type,
        "location_type": place,
        "location_raw": where,
        "locations": [
            {
                "city": city.city,
                "region": city.region,
                "country": city.country,
                "coordinates": {"type": "Point", "coordinates": [city.longitude, city.latitude]},
            }
        ],
        "date_posted": (today - timedelta(days=age)).isoformat(),
        "expired": False,
        "salary_range": {
            "min": pay,
            "max": pay + pay // 4 // 1000 * 1000,
            "currency": city.currency,
            "period": "year",
        },
        "yoe_range": {"min": years[0], "max": years[1]},
        "experience_level": level,
        "education_level": rng.pick(_EDUCATION),
        "job_categories": [role.category],
        "technologies": skills[:2] if role.category in _TECHNICAL else [],
        "skills": skills,
        "benefits": rng.sample(_BENEFITS, 3),
        "team": role.team,
        "language": "en",
        "visa_sponsored": visa,
        "recruiter_agency": False,
        "offers_equity": rng.chance() < 0.4,
        "flexibility_score": rng.score(),
        "benefits_score": rng.score(),
        "growth_score": rng.score(),
    }
    return postings.posting(rng.identity, orjson.dumps(members), members)


def _describe(
    rng: _Random,
    role: Role,
    company: dict[str, Any],
    title: str,
    skills: Sequence[str],
    years: Sequence[int],
    place: str,
    city: City,
) -> str:
    """Returns a description of one line: a file then has as many lines as postings."""
    land = f"the {city.country}" if city.country.startswith(("United", "Nether")) else city.country
    article = "an" if title.startswith(("A", "E", "HR", "O")) else "a"
    where = {
        "Remote": f"You can work from anywhere in {land}.",
        "Hybrid": f"You work from our office in {city.city} two or three days a week.",
        "In-Person": f"You work at our site in {city.city}.",
    }[place]
    duties = " ".join(rng.sample(_DUTIES, 3))
    return (
        f"{company['company_name']} is looking for {article} {title}. "
        f"{company['company_data']['description_summary']} In the {role.team} team you will "
        f"{role.work}. {duties} You bring {years[0]} to {years[1]} years of experience, and you "
        f"know {skills[0]}, {skills[1]} and {skills[2]}. {where} {rng.pick(_PERKS)}"
    )


@cache
def _companies() -> list[dict[str, Any]]:
    rng = _Random(0, 0)
    return [
        _company(f"{name} {kind}", [industry], [sub_industry], product, rng.pick(SIZES))
        for name in NAMES
        for kind, industry, sub_industry, product in KINDS
    ]


@cache
def _company_xyz() -> dict[str, Any]:
    industries = ["Design", "Construction"]
    parts = ["Architecture", "Building Construction"]
    return _company("CompanyXYZ", industries, parts, "buildings and their sites", (51, 200))


def _company(
    name: str, industries: list[str], parts: list[str], product: str, size: tuple[int, int]
) -> dict[str, Any]:
    slug = name.lower().replace(" ", "-")
    return {
        "company_name": name,
        "company_slug": slug,
        "company_link": f"https://www.{slug}.example.com",
        "company_logo": f"https://www.{slug}.example.com/logo.png",
        "contact_email": f"jobs@{slug}.example.com",
        "company_data": {
            "description_summary": f"{name} provides {product}.",
            "size_range": {"min": size[0], "max": size[1]},
            "industries": industries,
            "subindustries": parts,
            "services": [product],
            "is_recruiting_agency": False,
        },
    }
