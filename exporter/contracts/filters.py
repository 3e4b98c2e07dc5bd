"""Types of filter values shared by several contracts: texts, flags, days, months, numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

MAX_ENTRIES = 1_000
"""Maximum number of entries in one filter; far above real searches, it keeps records small."""
MAX_TEXT_CHARS = 1_000
"""Maximum number of characters in one text of a filter."""

Kind = Literal[
    "text", "texts", "flag", "day", "month", "time", "number", "choice", "range", "places", "json"
]
"""The input that a form shows for a filter; `json` is everything that no other kind describes."""


@dataclass(frozen=True)
class Shown:
    """Metadata of a filter's type for `described.describe`; has no effect on the validation."""

    kind: Kind
    choices: tuple[str, ...] = ()
    """Known values, in the order in which a form offers them."""


def fold(text: str) -> str:
    """Returns the text in lower case and without spaces and punctuation, for comparison.

    >>> fold("Full-Time") == fold("full_time") == fold("FULL TIME")
    True
    """
    return "".join(character for character in text.casefold() if character.isalnum())


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Returns a filter's value as a list; one text becomes a list of one, None an empty list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def is_day(text: str) -> bool:
    """True if the text is a day of the calendar, written exactly as YYYY-MM-DD."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def refuse(kind: str, message: str) -> NoReturn:
    """Raises pydantic's validation error for one value, with the given error type and message."""
    # pydantic reads the message as a template: braces in a user's text would be a placeholder.
    raise PydanticCustomError(kind, "{message}", {"message": message})  # type: ignore[arg-type, unused-ignore]


def _text(value: object, what: str = "the value") -> str:
    if not isinstance(value, str):
        refuse("string_type", f"{what} should be a text, not {type(value).__name__}")
    if not value.strip():
        refuse("string_blank", f"{what} is blank: leave the filter out instead")
    if len(value) > MAX_TEXT_CHARS:
        refuse(
            "string_too_long",
            f"{what} has {len(value)} characters, the maximum is {MAX_TEXT_CHARS}",
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse("string_unicode", f"{what} holds half of a surrogate pair: send whole characters")
    return value


def _texts(value: object) -> str | list[str]:
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, list | tuple):
        refuse(
            "list_type", f"Input should be a text or a list of texts, not {type(value).__name__}"
        )
    if len(value) > MAX_ENTRIES:
        refuse("too_long", f"{len(value)} entries, the maximum is {MAX_ENTRIES}")
    return [_text(entry, f"entry {place}") for place, entry in enumerate(value, 1)]


def _flag(value: object) -> bool:
    spoken = value.casefold() if isinstance(value, str) else value
    if spoken is True or spoken == "true":
        return True
    if spoken is False or spoken == "false":
        return False
    refuse("bool_parsing", 'Input should be "true" or "false"')


def _day(value: object) -> str:
    text = _text(value)
    if not is_day(text):
        refuse("date_parsing", f"Input should be a date as YYYY-MM-DD, not {text!r}")
    return text


def _month(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])", text):
        refuse("month_parsing", f"Input should be a month as YYYY-MM, not {text!r}")
    return text


def _optional(check: Callable[[Any], object], wire: Any) -> PlainValidator:
    # An explicit null is an absent filter: the task object echoes absent filters as null, and
    # callers send that echo back.
    return PlainValidator(
        lambda value: None if value is None else check(value), json_schema_input_type=wire | None
    )


WireText = Annotated[str, Field(pattern=r"\S", max_length=MAX_TEXT_CHARS)]
"""The JSON Schema of a text; `_text` enforces the same bounds."""
Text = Annotated[str | None, _optional(_text, WireText), Shown("text")]
Texts = Annotated[
    str | list[str] | None, _optional(_texts, WireText | list[WireText]), Shown("texts")
]
Flag = Annotated[bool | None, _optional(_flag, bool | Literal["true", "false"]), Shown("flag")]
Day = Annotated[str | None, _optional(_day, WireText), Shown("day")]
Month = Annotated[str | None, _optional(_month, WireText), Shown("month")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Strict(BaseModel):
    """Base of models that refuse unknown fields."""

    # An ignored filter would export, and charge for, rows that the caller did not request.
    model_config = ConfigDict(extra="forbid")
