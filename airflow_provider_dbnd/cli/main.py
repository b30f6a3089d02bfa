"""The ``dbnd`` command."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Optional

import typer

from airflow_provider_dbnd import __version__

app = typer.Typer(
    name="dbnd",
    help="Run, inspect and debug typed pipelines, with or without Airflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Target = Annotated[
    str, typer.Argument(help="FILE.py[:NAME] or package.module[:NAME].", show_default=False)
]
Assignments = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", "-s", metavar="NAME=VALUE", help="Set a parameter; TASK.NAME=VALUE for one task."
    ),
]
Environment = Annotated[
    Optional[str], typer.Option("--env", "-e", help="Use [environments.ENV] of dbnd.toml.")
]


def _version(value: bool) -> None:
    if value:
        print(f"dbnd {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what is read, written and measured.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )


@app.command()
def run(
    target: Target,
    assignments: Assignments = None,
    environment: Environment = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Show what would run, with parameters; run nothing.")
    ] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", "-p", min=1, help="Tasks at once (threads).")
    ] = 1,
    date: Annotated[
        Optional[str], typer.Option("--date", help="Logical date of the run; today if not given.")
    ] = None,
    run_id: Annotated[
        Optional[str], typer.Option("--run-id", help="Name of the run; made up if not given.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Run a pipeline or a task here, without Airflow."""
    if describe:
        from airflow_provider_dbnd.cli.show import show as show_target

        raise typer.Exit(show_target(target, assignments or [], environment))
    from airflow_provider_dbnd.cli.run import run as run_target

    raise typer.Exit(
        run_target(
            target,
            assignments=assignments or [],
            environment=environment,
            parallel=parallel,
            date=date,
            run_id=run_id,
            quiet=quiet,
        )
    )


@app.command("list")
def list_command(
    paths: Annotated[
        Optional[list[str]], typer.Argument(help="Files and folders.", show_default="here")
    ] = None,
) -> None:
    """List the tasks and pipelines of files."""
    from airflow_provider_dbnd.cli.show import list_runnables

    raise typer.Exit(list_runnables(paths or ["."]))


@app.command()
def show(target: Target, assignments: Assignments = None, environment: Environment = None) -> None:
    """Show a pipeline's graph and parameters, each value with its source."""
    from airflow_provider_dbnd.cli.show import show as show_target

    raise typer.Exit(show_target(target, assignments or [], environment))


@app.command()
def check(
    paths: Annotated[list[str], typer.Argument(help="DAG files.", show_default=False)],
) -> None:
    """Check that Airflow would find and parse a file, and what a newcomer trips over."""
    from airflow_provider_dbnd.cli.check import check_files

    raise typer.Exit(check_files(paths))


@app.command("test-task")
def test_task(
    dag_id: Annotated[str, typer.Argument(help="The DAG.", show_default=False)],
    task_id: Annotated[str, typer.Argument(help="The task in it.", show_default=False)],
    run_id: Annotated[
        Optional[str],
        typer.Option(
            "--run", help="Past run that upstream results are read from; the newest if not given."
        ),
    ] = None,
    map_index: Annotated[
        int, typer.Option("--map-index", help="Which instance of a mapped task.")
    ] = -1,
    assignments: Assignments = None,
    file: Annotated[
        Optional[str],
        typer.Option("--file", help="The DAG's file; else the dags folder is searched."),
    ] = None,
) -> None:
    """Run one task of an Airflow DAG here, on the upstream results of a past run.

    Nothing of that run is changed. Exits with 1 where the task fails.
    """
    from airflow_provider_dbnd.cli.test_task import run_task

    raise typer.Exit(
        run_task(
            dag_id,
            task_id,
            run_id=run_id,
            map_index=map_index,
            assignments=assignments or [],
            file=file,
        )
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code. Our own errors are one line, not a traceback."""
    from airflow_provider_dbnd.exceptions import DbndError

    try:
        code = app(arguments, standalone_mode=False, prog_name="dbnd")
    except typer.Exit as exc:
        return exc.exit_code
    except DbndError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return 2
    except Exception as exc:
        # click's usage errors know how to show themselves; anything else is a bug or the user's own error.
        if not hasattr(exc, "show"):
            raise
        exc.show()
        return int(getattr(exc, "exit_code", 2))
    return int(code or 0)


def entry() -> None:
    """Console script."""
    sys.exit(main())
