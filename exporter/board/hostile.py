"""Profile `hostile`: synthetic postings with all the unusual content that real ones have.

Titles that spreadsheets run as formulas, control characters, missing and nested members, numbers
that lose digits, and one posting in twenty that is expired, so that a search does not find it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any, TypeVar

import orjson

from exporter.board import postings

T = TypeVar("T")

_FIRST_DAY = date(2025, 1, 1)
_DAYS = 730
_ROLES = (
    *("Backend Engineer", "Data Analyst", "Registered Nurse", "Account Executive", "C++ Developer"),
    *("Site/Civil Engineer", "Électricien (H/F)", "Softwareentwickler:in", "Инженер данных"),
    *("ソフトウェアエンジニア", "数据工程师", "مهندس برمجيات", "מפתחת תוכנה", "सॉफ्टवेयर इंजीनियर"),
    *("Line Cook", "Chief of Staff, EMEA", 'Editor "Features"', "R&D Chemist <Polymers>"),
)
_GRADES = ("", "Senior ", "Junior ", "Lead ", "Staff ", "Intern, ")
_AWKWARD_TITLES = (
    *("=1+1", "+cmd", "-2", "@x", "\tTabbed title", "[Remote] Engineer", "[1]", "null", "1.10"),
    *("Night shift 🌙, weekends", "Zoë's café 👩🏽‍🍳", "Line one\nLine two", 'Ends with a quote"'),
    *(
        "e\u0301 is not é",
        "Hidden\u200bspace",
        "Separated\u2028line",
        "NUL\u0000inside",
        " padded ",
    ),
)
_COMPANIES = tuple(
    f"{name} {kind}"
    for name in (
        *("Northwind", "Blue Harbour", "Kestrel", "Ångström", "Müller & Söhne", "O'Neill", "木村"),
        *("Фабрика", 'Quote "Q"', "Comma, Inc", "Tamarind", "Silverline", "Ørsted Bay", "Zenith"),
    )
    for kind in ("Labs", "Health", "Logistics", "Robotics", "Foods", "Bank", "Studio", "Energy")
)
_CITIES = (
    ("San Francisco", "California", "United States", -122.4194, 37.7749),
    ("Oakland", "California", "United States", -122.2712, 37.8044),
    ("Richmond", "Virginia", "United States", -77.436, 37.5407),
    ("New York", "New York", "United States", -74.006, 40.7128),
    ("Austin", "Texas", "United States", -97.7431, 30.2672),
    ("Berlin", "Berlin", "Germany", 13.405, 52.52),
    ("München", "Bayern", "Germany", 11.582, 48.1351),
    ("Zürich", "Zürich", "Switzerland", 8.5417, 47.3769),
    ("São Paulo", "São Paulo", "Brazil", -46.6333, -23.5505),
    ("Bengaluru", "Karnataka", "India", 77.5946, 12.9716),
    ("東京", "東京都", "日本", 139.6917, 35.6895),
    ("القاهرة", "", "مصر", 31.2357, 30.0444),
)
_PLACES: list[dict[str, Any]] = [
    {"city": city, "region": region or None, "country": country, **point}
    for city, region, country, longitude, latitude in _CITIES
    for point in (
        {},
        {"coordinates": {"type": "Point", "coordinates": [longitude, latitude]}},
    )
]
_SUBJECTS = ("You", "Our team", "The successful candidate", "A colleague in this role", "We")
_FOREIGN_SUBJECTS = (
    "Die Abteilung für Qualität",
    "Notre équipe",
    "Команда",
    "チームは",
    "我们的团队",
)
_VERBS = (
    *("plan", "own", "document", "improve", "test", "operate", "review", "support", "build"),
    *("measure", "explain", "automate"),
)
_THINGS = (
    *("billing services", "patient records", "cold-chain deliveries", "release pipelines"),
    *("laboratory equipment", "customer contracts", "forecast models", "safety procedures"),
    *("storefront kitchens", "wind turbines", "payment ledgers", "training courses"),
)
_ENDS = (
    *(
        " every day.\n",
        ", often under time pressure;\r\n",
        " with three others.",
        ' ("on call").\r',
    ),
    *("<br/><ul><li>5+ years</li></ul>", ", and more, and more.\n\n", " (50,000 units/yr)."),
    *(" at C:\\work\\new.\t", '<p class="x">Apply &amp; relax</p>\n'),
)
_FOREIGN_ENDS = (" – 100 % remote! 🚀\n", " und noch mehr…\u2028", " naïvement.\u0085", " ✅\u200b")
_INDUSTRIES = (
    *("Design", "Construction", "Healthcare", "Software", "Finance", "Food", "Energy", "Logistics"),
)
_SUB_INDUSTRIES = ("Architecture", "Building Construction", "Hospitals", "Payments", "Wind Power")
_CATEGORIES = ("Engineering", "Data", "Nursing", "Sales", "Hospitality", "Operations", "Editorial")
_SKILLS = ("python", "SQL", "C++", "welding", "triage", "Excel, advanced", "日本語", "negotiation")
_BENEFITS = ("Dental", "401(k), matched", "Relocation", "30 days' leave", "Crèche", "Free lunch 🍜")
_LEVELS = ("Entry", "Junior", "Mid", "Senior", "Executive")
_SIZES = ((1, 10), (11, 50), (51, 200), (201, 500), (501, 1000), (1001, 5000))
_OPTIONAL = (
    *("company_logo", "requirements_summary", "job_board", "salary_range", "yoe_range", "team"),
    *("education_level", "technologies", "skills", "benefits", "company_data", "description"),
    *("experience_level", "contact_email", "offers_equity", "date_posted", "locations"),
)
_MEAN_BLOCKS = 4.5


def _companies() -> list[dict[str, Any]]:
    rng = random.Random("companies")  # noqa: S311 - not a secret
    return [
        {
            "company_name": name,
            "company_slug": f"company-{place}",
            "company_logo": f"https://cdn.example.com/logos/company-{place}.png",
            "contact_email": f"jobs@company-{place}.example.com",
            "company_data": {
                "description_summary": f"{name} makes {rng.choice(_THINGS)}.",
                "size_range": dict(zip(("min", "max"), rng.choice(_SIZES), strict=True)),
                "industries": [rng.choice(_INDUSTRIES)],
                "subindustries": [rng.choice(_SUB_INDUSTRIES)],
                "services": rng.sample(_THINGS, 2),
                "is_recruiting_agency": place % 10 == 0,
            },
        }
        for place, name in enumerate(_COMPANIES)
    ]


def generate(rows: int, seed: int = 1) -> Iterator[postings.Posting]:
    """Yields the postings 0 to `rows` - 1 of a seed, in order.

    Posting i depends only on (seed, i).
    """
    blocks, companies = _blocks(), _companies()
    for number in range(rows):
        yield _posting(seed, number, blocks, companies)


def _blocks() -> list[str]:
    """Returns blocks of description text, about 290 bytes each, shared by all postings."""
    rng = random.Random("blocks")  # noqa: S311 - not a secret
    # One block in twelve is not ASCII, so that a third of the postings contain non-ASCII text.
    kinds = [(_FOREIGN_SUBJECTS, _FOREIGN_ENDS), *[(_SUBJECTS, _ENDS)] * 11]
    return [
        "".join(
            f"{rng.choice(subjects)} {rng.choice(_VERBS)} {rng.choice(_THINGS)}{rng.choice(ends)}"
            for _ in range(5)
        )
        for subjects, ends in kinds * 36
    ]


def _posting(
    seed: int, number: int, blocks: list[str], companies: list[dict[str, Any]]
) -> postings.Posting:
    # Hashes the seed, because a Mersenne Twister starts similarly for similar seeds.
    name = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=20).digest()
    rng = random.Random(int.from_bytes(name))  # noqa: S311 - not a secret
    chance = rng.random

    def pick(values: Sequence[T]) -> T:
        return values[int(chance() * len(values))]  # three times as fast as random.choice

    identity = name[:12].hex()
    company = pick(companies)
    slug = company["company_slug"]
    title = pick(_AWKWARD_TITLES) if chance() < 0.03 else pick(_GRADES) + pick(_ROLES)
    places = [pick(_PLACES) for _ in range(1 if chance() < 0.85 else 3)]
    pay, years = int(chance() * 160) * 1000 + 30_000, int(chance() * 12)
    length = 100 if chance() < 0.001 else 2 + int(chance() * (2 * _MEAN_BLOCKS - 3))
    members: dict[str, Any] = {
        "_id": identity,
        **company,
        "job_title": title,
        "job_slug": f"{slug}-{identity[:8]}",
        "description": "".join(pick(blocks) for _ in range(length)),
        "requirements_summary": pick(blocks)[:120],
        "application_link": f"https://jobs.example.com/{slug}/{identity}?src=a&ref=b",
        "job_board": pick(("Greenhouse", "Lever", "Workday", "own site")),
        "job_type": pick(("Full-time", ["Full-time"], ["Part-time", "Contract"], "Internship")),
        "location_type": pick(("Remote", "Hybrid", "In-Person", ["Remote", "Hybrid"])),
        "location_raw": "; ".join(f"{place['city']}, {place['country']}" for place in places),
        "locations": places,
        "date_posted": (_FIRST_DAY + timedelta(days=int(chance() * _DAYS))).isoformat(),
        "expired": chance() < 0.05,
        "salary_range": {
            "min": pay,
            "max": pay + int(chance() * 50) * 1000 if chance() < 0.9 else None,
            "currency": pick(("USD", "EUR", "JPY")),
            "period": "year",
        },
        "yoe_range": {"min": years, "max": years + 3 if chance() < 0.7 else None},
        "experience_level": pick(_LEVELS),
        "education_level": pick(("Bachelor's", "Master's", "None", '=HYPERLINK("x")')),
        "job_categories": [pick(_CATEGORIES)],
        "technologies": [pick(_SKILLS) for _ in range(int(chance() * 4))],
        "skills": [pick(_SKILLS) for _ in range(int(chance() * 5))],
        "benefits": [pick(_BENEFITS) for _ in range(int(chance() * 3))],
        "team": pick(("Core", "Büro Süd", "-", "")),
        "visa_sponsored": chance() < 0.3,
        "recruiter_agency": chance() < 0.1,
        "offers_equity": chance() < 0.4,
        "growth_score": round(chance(), 4),
    }
    if chance() < 0.35:
        for optional in _OPTIONAL:
            fate = chance()
            if fate < 1 / 6:
                del members[optional]
            elif fate < 1 / 4:
                members[optional] = None
    if chance() < 0.05:
        members["nested"] = {"a": [[1, [2, {"b": None}]], {}], "": [], "ü": [True, "x\ny"]}
    order = list(members.items())
    cut = int(chance() * len(order))
    text = orjson.dumps(dict(order[cut:] + order[:cut]))
    if chance() < 0.1:
        # Numbers that lose digits when they are parsed as 64-bit integers or floats.
        odd = f',"requisition":{2**64 + number * 10**9},"fte":1.10,"factor":-0.0,"rate":1E+2}}'
        text = text[:-1] + odd.encode()
    return postings.posting(identity, text, members)
