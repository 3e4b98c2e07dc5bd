"""The `exporter` command with all its subcommands."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli import endpoints, exports, keys, listen, local_stack, processes, sign_in, sources
from exporter.cli.board import Faults, ProfileOption, board, check_profile
from exporter.cli.console import DATA_DIR, err, out, print_warning, report_errors
from exporter.cli.strict import StrictGroup

app = typer.Typer(
    cls=StrictGroup,
    help="Turns a search over job postings into a file: all the rows, proven.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


_NAMED_IN_LOG = ("api", "worker", "webhooks", "beat")
"""Commands whose processes name unknown settings in their log."""


def _print_version(value: bool) -> None:
    if value:
        out.print(f"exporter {metadata.version('allrows')}", highlight=False)
        raise typer.Exit


@app.callback()
def check_settings(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Ends every command but `doctor`, which reports them, if a setting is wrong."""
    if context.invoked_subcommand == "doctor":
        return
    from exporter import settings

    with report_errors():
        settings.load()
    if context.invoked_subcommand not in _NAMED_IN_LOG:
        for text in settings.warnings():
            print_warning(text)


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(help="Where all state is kept.")] = DATA_DIR,
    port: Annotated[int, typer.Option(help="The API's port; all others derive from it.")] = 8800,
    workers: Annotated[int, typer.Option(min=1, help="Slices at once.")] = 2,
    board: Annotated[bool, typer.Option(help="Start the reference board too.")] = True,
    board_rows: Annotated[
        int | None, typer.Option(min=1, help="Fill the board with so many synthetic postings.")
    ] = None,
    board_profile: ProfileOption = None,
    board_data: Annotated[
        Path | None, typer.Option(exists=True, help="Fill an empty board from JSON Lines.")
    ] = None,
    board_faults: Faults = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all answer; `exporter down` ends them.")
    ] = False,
) -> None:
    """Start Redis, S3, the board and the processes api, worker, webhooks and beat.

    They run until a signal, or `exporter down`, ends them all. The other commands find them in
    `.exporter`, and `exporter env` prints their variables.
    """
    from exporter.local import background, stack

    check_profile(board_profile, board_rows, "--board-profile", "--board-rows")
    given = {"rows": board_rows, "data": board_data, "faults": board_faults}
    for name, value in given.items():
        if value is not None and not board:
            raise typer.BadParameter(f"--board-{name} has no effect with --no-board: leave one out")
    if board_faults is not None:
        from exporter.board.misbehavior import faults

        with report_errors():  # here, not in the log of a board that cannot start
            faults.parse(board_faults)
    if detach:
        with report_errors():
            arguments = [one for one in sys.argv[1:] if one != "--detach"]
            status = background.start(data_dir, arguments)
            if status == 0 and data_dir == DATA_DIR:
                err.print(f"console: {sign_in.link()}", highlight=False, soft_wrap=True)
            raise typer.Exit(status)
    own = stack.Stack(
        data_dir,
        port,
        workers,
        board=board,
        board_rows=board_rows,
        board_profile=board_profile,
        board_data=board_data,
        board_faults=board_faults,
    )
    raise typer.Exit(stack.run(own, sign_in.print_link))


@app.command()
def down(
    data_dir: Annotated[Path, typer.Option(help="Where the stack keeps its state.")] = DATA_DIR,
) -> None:
    """End the stack that `exporter up` started; its state stays."""
    from exporter.local import background

    with report_errors():
        background.stop(data_dir)


@app.command()
def demo(
    rows: Annotated[int, typer.Option(min=1, help="Postings on the board.")] = 20_000,
) -> None:
    """Show the whole service: start it, export from its board into ./jobs.csv, show the proof."""
    from exporter.cli.demo import run

    with report_errors():
        raise typer.Exit(run(rows, out, err))


@app.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for programs.")
    ] = False,
) -> None:
    """Check every dependency and setting, and say how to correct what is wrong.

    Exit code 0: no check failed. Takes 15 seconds at most.
    """
    from exporter.cli.doctor.command import run

    local_stack.use()
    raise typer.Exit(run(out, as_json=as_json))


@app.command()
def env(
    data_dir: Annotated[Path, typer.Option(help="Folder of the running stack.")] = DATA_DIR,
) -> None:
    """Print the variables of the local stack for a shell: eval "$(exporter env)".

    They contain its passwords and keys. Exit code 1: no stack is running there.
    """
    with report_errors():
        for line in list(local_stack.shell_lines(data_dir)):
            out.print(line, highlight=False, soft_wrap=True, markup=False)


@app.command()
def upgrade(
    force: Annotated[
        bool, typer.Option("--force", help="Even if processes of that release seem to run.")
    ] = False,
) -> None:
    """Rename and index the records of release 0.2.0 or earlier; stop all processes first.

    Safe to repeat, also after an interruption. `exporter up` does it by itself.
    """
    from exporter import settings, wiring
    from exporter.store.redis import schema

    local_stack.use()
    with report_errors():
        store = wiring.store(settings.load())
        renamed = schema.upgrade(store.client, store.names, force=force)
        listed = store.mend_lists()
    err.print(f"renamed {renamed} keys; the records have version {schema.VERSION}")
    err.print(f"brought {listed} exports into the lists as their records are")


for command in (
    exports.export,
    exports.ls,
    exports.show,
    exports.watch,
    exports.download,
    exports.cancel,
    exports.retry,
    exports.rm,
    sources.sources,
    sources.preview,
    listen.listen,
):
    app.command()(command)
for process in (processes.api, processes.worker, processes.webhooks, processes.beat):
    app.command()(process)
app.command()(sign_in.console)
app.add_typer(keys.keys, name="keys")
app.add_typer(endpoints.endpoints, name="endpoints")
app.add_typer(board, name="board")


def main() -> None:
    """Run the subcommand that the command line names."""
    app()
