"""Tests of the tree of errors that is drawn in the docstring of `exporter.errors`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import exporter
import workers
from exporter import errors
from exporter.errors import ExporterError

PACKAGES = (exporter, workers)
INDENT = 5
"""Columns by which a child is drawn further to the right than its parent."""


def import_all(package: ModuleType) -> None:
    """Imports every module below the package, except entry points and what needs an extra."""
    prefix = f"{package.__name__}."
    for module in pkgutil.walk_packages(package.__path__, prefix):
        if module.name.endswith(".__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith(tuple(f"{p.__name__}." for p in PACKAGES)):
                raise


def subclasses(parent: type[ExporterError]) -> Iterator[tuple[str, str]]:
    """Yields (parent, child) names of all subclasses that are defined in the product."""
    for child in parent.__subclasses__():
        if child.__module__.partition(".")[0] in {package.__name__ for package in PACKAGES}:
            yield parent.__name__, child.__name__
            yield from subclasses(child)


def drawn() -> Iterator[tuple[str, str]]:
    """Yields (parent, child) names of the tree in the docstring."""
    path = ["ExporterError"]
    for mark in re.finditer(r"^( [| ]*)\+-- (\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = 1 + len(mark[1]) // INDENT
        path[depth:] = [mark[2]]
        yield path[depth - 1], mark[2]


def test_the_tree_in_the_docstring_has_every_error_below_its_parent() -> None:
    # Given
    for package in PACKAGES:
        import_all(package)
    # When
    tree = list(drawn())
    # Then
    assert sorted(set(tree)) == sorted(set(subclasses(ExporterError)))


def test_no_error_is_drawn_twice_below_one_parent() -> None:
    # When
    tree = list(drawn())
    # Then
    assert len(tree) == len(set(tree))
