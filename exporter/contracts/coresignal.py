"""Filters and limits of the Coresignal base jobs API."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from exporter.contracts import timestamps
from exporter.contracts.described import Filter, describe
from exporter.contracts.filters import Shown, Strict, Text, WireText

MAX_IDS = 1_000
"""Maximum number of ids on one page of a search, and in one request for many records."""
MAX_ID_DIGITS = 18
"""Maximum number of digits of an id: longer ids do not fit the integers of many databases."""


def _moment(value: object) -> str | None:
    if value is None or (isinstance(value, str) and timestamps.is_spaced(value)):
        return value
    raise PydanticCustomError("datetime_parsing", "Input should be a time as YYYY-MM-DD hh:mm:ss")


Moment = Annotated[
    str | None,
    PlainValidator(_moment, json_schema_input_type=WireText | None),
    Shown("time"),
    Field(
        json_schema_extra={
            "pattern": "^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
            " ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"
        }
    ),
]
Flag = Annotated[bool, Field(strict=True)] | None


class JobFilters(Strict):
    """The filters of the vendor's job search; unknown filters are refused.

    Times are inclusive bounds. Texts may use AND, OR and `"an exact phrase"`. A null is an absent
    filter. `company_linkedin_url` is the older name of `company_professional_network_url`.

    Raises pydantic.ValidationError. An unknown filter has the error type `extra_forbidden`.
    """

    created_at_gte: Moment = Field(None, description="The record was made at this time or later.")
    created_at_lte: Moment = Field(None, description="The record was made at this time or earlier.")
    last_updated_gte: Moment = Field(
        None, description="The record changed last at this time or later."
    )
    last_updated_lte: Moment = Field(
        None, description="The record changed last at this time or earlier."
    )
    title: Text = Field(None, description="Words of the title.")
    keyword_description: Text = Field(None, description="Words of the description.")
    employment_type: Text = Field(None, description="Such as Full-time.")
    location: Text = Field(None, description="Words of the place.")
    company_id: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)] | None = Field(
        None, description="Id of the company in the source."
    )
    company_name: Text = Field(None, description="Words of the company's name.")
    company_domain: Text = Field(
        None, description="Domain of the company's website, such as acme.com."
    )
    company_exact_website: Text = Field(None, description="URL of the company's website, whole.")
    company_professional_network_url: Text = Field(
        None, description="URL of the company's profile."
    )
    company_linkedin_url: Text = Field(None, exclude=True)
    deleted: Flag = Field(None, description="Whether the posting was removed.")
    application_active: Flag = Field(None, description="Whether applications are still accepted.")
    country: Text = Field(None, description="Name of the country.")
    industry: Text = Field(None, description="Words of the industry.")

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        here, there = self.company_professional_network_url, self.company_linkedin_url
        if here and there and here != there:
            raise PydanticCustomError(
                "two_spellings",
                "company_linkedin_url and company_professional_network_url are two spellings of "
                "one filter and differ: send one",
            )
        self.company_professional_network_url = here or there
        return self

    def canonical(self) -> dict[str, Any]:
        """Returns the given filters in a fixed order, as they are stored and sent upstream."""
        return self.model_dump(exclude_none=True)


FILTERS: tuple[Filter, ...] = describe(JobFilters)
"""The filters of `JobFilters`, each in one spelling."""
