"""The `exporter board` commands."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from exporter import logs
from exporter.board.profiles import Profile
from exporter.cli.console import DATA_DIR, err, report_errors
from exporter.cli.processes import Host, Port
from exporter.errors import ExporterError

board = typer.Typer(help="The reference job board, an upstream to try.", no_args_is_help=True)

Database = Annotated[
    Path, typer.Option(envvar="EXPORTER_BOARD_DATABASE", help="The board's SQLite file.")
]
Faults = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Misbehave on request, such as 'latency=20ms-80ms, 429=2%, reset=1%, drift=3/s': "
        "latency=TIME; drift=N/s (postings inserted, updated, deleted a second); seed=N; and, each "
        "with a share of the searches, 429, 503, 502, 500 (refused), reset, truncate, slow (broken "
        "or dripping bodies), html, shape (not a page), empty, short, total (false pages). "
        "'' misbehaves only after POST /faults.",
    ),
]
ProfileOption = Annotated[
    Profile | None,
    typer.Option(
        help="Kind of synthetic postings: friendly (common titles, dates up to today; the default) "
        "or hostile (everything that breaks files, for tests)."
    ),
]


@board.command("serve")
def serve(
    database: Database = DATA_DIR / "board.sqlite",
    data: Annotated[
        Path | None, typer.Option(exists=True, help="JSON Lines (.gz too) to load first.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Synthetic postings to make first.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Other seed, other postings; default: 1.")
    ] = None,
    profile: ProfileOption = None,
    port: Port = 8810,
    host: Host = "127.0.0.1",
    faults: Faults = None,
) -> None:
    """Serve the board; requests need the API key that is in the environment variable BOARD_KEY."""
    from exporter.board import app as board_app
    from exporter.board import synthetic

    check_profile(profile, rows, "--profile", "--rows")
    if seed is not None and rows is None:
        raise typer.BadParameter("--seed has no effect without --rows: give both, or leave it out")
    logs.configure("board")
    key = os.environ.get("BOARD_KEY")
    with report_errors():
        if not key:
            raise ExporterError("BOARD_KEY is not set: choose a key that callers must show")
        _fill(database, data, rows, 1 if seed is None else seed, profile or Profile.FRIENDLY)
        if rows is None:
            synthetic.refresh(database)
        board_app.serve(database, host, port, [key], faults)


@board.command("load")
def load(
    file: Annotated[Path, typer.Argument(exists=True, help="JSON Lines, .gz too.")],
    database: Database = DATA_DIR / "board.sqlite",
) -> None:
    """Load postings into the board; a board that is running serves them at once."""
    with report_errors():
        _fill(database, file, None)


def check_profile(profile: Profile | None, rows: int | None, option: str, needed: str) -> None:
    """Raises BadParameter for a profile without a number of postings: it would have no effect."""
    if profile is not None and rows is None:
        raise typer.BadParameter(f"{option} needs {needed}, the number of synthetic postings")


def _fill(
    database: Path,
    data: Path | None,
    rows: int | None,
    seed: int = 1,
    profile: Profile = Profile.FRIENDLY,
) -> None:
    from exporter.board import database as stored
    from exporter.board.synthetic import synthesize
    from exporter.local import private

    if database.parent.resolve() == DATA_DIR.resolve():
        private.make_folder(database.parent)
    try:
        stored.prepare(database)
        if rows is not None:
            synthesize(database, rows, seed, profile)
            err.print(
                f"{rows} {profile} synthetic postings of seed {seed} in {database}, "
                f"{stored.count_open(database)} of the board's postings are open",
                highlight=False,
                soft_wrap=True,
            )
        if data is not None:
            loaded = stored.load(database, data)
            err.print(
                f"{loaded.loaded} postings from {data} into {database}, "
                f"{loaded.replaced} in place of older ones",
                highlight=False,
                soft_wrap=True,
            )
    except sqlite3.Error as error:
        raise ExporterError(f"{database}: {error}") from None
