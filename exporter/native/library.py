"""Loads the compiled library, whose source is kernel.c."""

from __future__ import annotations

import ctypes
import hashlib
import os
from functools import cache
from pathlib import Path

VERSION = 2
"""`KERNEL_VERSION` of the library that these declarations fit."""
PATH = Path(__file__).with_name("kernel.library")
"""Where the build puts the library; not named .so, so that nothing takes it for a module."""
VARIABLE = "EXPORTER_NATIVE"
"""Environment variable that turns the library off with the value 0."""
OFF = f"{VARIABLE}=0 turns it off"
"""Reason that `find` returns if the variable turns the library off."""

_Size = ctypes.c_size_t
_Number = ctypes.c_uint32
_Bytes = ctypes.c_char_p
_Address = ctypes.c_void_p


class RowPlace(ctypes.Structure):
    """Place of a row in its page."""

    _fields_ = [(one, _Number) for one in ("at", "size", "first", "count", "flags", "identity")]


class NamePlace(ctypes.Structure):
    """Place of the name of a field among the names of its page."""

    _fields_ = [(one, _Number) for one in ("at", "size", "hash", "next", "flags")]


class CutPage(ctypes.Structure):
    """A page that was cut into rows."""

    _fields_ = [
        ("row_count", _Number),
        ("name_count", _Number),
        ("odd_rows", _Number),
        ("padding", _Number),
        ("list_begin", ctypes.c_uint64),
        ("list_end", ctypes.c_uint64),
        ("rows", ctypes.POINTER(RowPlace)),
        ("names", ctypes.POINTER(NamePlace)),
        ("name_bytes", _Address),
        ("digests", _Address),
    ]


class Report(ctypes.Structure):
    """Sizes and counts that `csv_write` or `json_write` returns, see `Report` in plan.h."""

    _fields_ = [
        ("written", ctypes.c_uint64),
        ("next", _Number),
        ("guarded", _Number),
        ("replaced", _Number),
        ("padding", _Number),
    ]


_PAGE = ctypes.POINTER(CutPage)
_REPORT = ctypes.POINTER(Report)
_OUTPUT = (_Address, _Address, _Address, _REPORT)
_FUNCTIONS = {
    "page_cut": (_PAGE, (_Bytes, _Size, _Bytes, _Number, _Bytes, _Number)),
    "page_free": (None, (_PAGE,)),
    "plan_make": (
        _Address,
        (
            _Number,
            _Address,
            _Number,
            _Bytes,
            _Address,
            _Bytes,
            _Address,
            ctypes.c_int,
            ctypes.c_int,
        ),
    ),
    "plan_free": (None, (_Address,)),
    "csv_room": (ctypes.c_uint64, (_PAGE, _Address, _Number, _Number)),
    "csv_write": (ctypes.c_int, (_PAGE, _Address, _Number, _Number, *_OUTPUT)),
    "json_room": (ctypes.c_uint64, (_PAGE, _Address, _Number, _Number, _Number)),
    "json_write": (ctypes.c_int, (_PAGE, _Address, _Number, _Number, _Bytes, _Number, *_OUTPUT)),
    "crc64": (ctypes.c_uint64, (ctypes.c_uint64, _Address, _Size)),
    "crc64_combine": (ctypes.c_uint64, (ctypes.c_uint64,) * 3),
}


def stamp_path(path: Path) -> Path:
    """Returns the path of the stamp of a library."""
    return path.with_suffix(".stamp")


def stamp(path: Path) -> bytes:
    """Returns the stamp of a library: the digest of its bytes and of the C sources."""
    digest = hashlib.blake2b(digest_size=16)
    for one in (*sorted(PATH.parent.glob("*.[ch]")), path):
        digest.update(one.read_bytes())
    return digest.hexdigest().encode()


def load(path: Path = PATH) -> ctypes.CDLL:
    """Returns the library at a path.

    Raises OSError, whose text says why, if there is none for this machine, it has another version,
    or it is not the one that the build has stamped. A library without a stamp is taken as it is.
    """
    if not path.exists():
        raise OSError(f"{path} does not exist: it was not compiled when this was installed")
    # Before it is loaded: a truncated library would end this process.
    if stamp_path(path).exists() and stamp_path(path).read_bytes() != stamp(path):
        raise OSError(f"{path} is damaged, or was not compiled from the C sources beside it")
    library = ctypes.CDLL(str(path))
    try:
        version = library.kernel_version()
        if version != VERSION:
            raise OSError(f"{path} has version {version}, but version {VERSION} is needed")
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise OSError(f"{path} is another library: {error}") from None
    return library


@cache
def find() -> tuple[ctypes.CDLL | None, str]:
    """Returns the library, or None if it cannot be used, and the reason."""
    if os.environ.get(VARIABLE) == "0":
        return None, OFF
    try:
        return load(), ""
    except OSError as error:
        return None, str(error)
