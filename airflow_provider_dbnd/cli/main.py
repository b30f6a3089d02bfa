"""The ``dbnd`` command."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Optional

import typer

from airflow_provider_dbnd import __version__
from airflow_provider_dbnd.cli.artifacts_app import app as artifacts_app
from airflow_provider_dbnd.cli.options import AsJson, Environment, Limit, Store, opened

app = typer.Typer(
    name="dbnd",
    help="Run, inspect and debug typed pipelines, with or without Airflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

#: Exit codes beside 0 and 1 (a task or a check failed): a wrong command or input; Ctrl-C.
WRONG, INTERRUPTED = 2, 130

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", help="FILE.py[:NAME] or package.module[:NAME].", show_default=False
    ),
]
Assignments = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", "-s", metavar="NAME=VALUE", help="Set a parameter; TASK.NAME=VALUE for one task."
    ),
]


def _version(value: bool) -> None:
    if value:
        print(f"dbnd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what is read, written and measured.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # Airflow sets up logging of its own when a DAG file imports it: as quiet as ours.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO" if verbose else "WARNING")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )


@app.command()
def run(
    target: Target,
    *,
    assignments: Assignments = None,
    environment: Environment = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Show what would run; run nothing.")
    ] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", "-p", metavar="N", min=1, help="Run up to N tasks at once.")
    ] = 1,
    date: Annotated[
        Optional[str],
        typer.Option(
            "--date", metavar="DATE", help="Logical date of the run.", show_default="today"
        ),
    ] = None,
    run_id: Annotated[
        Optional[str],
        typer.Option(
            "--run-id", metavar="ID", help="Name of the run.", show_default="from the time"
        ),
    ] = None,
    reuse: Annotated[
        Optional[bool],
        typer.Option(
            "--reuse/--no-reuse",
            help="Let results of earlier runs stand for tasks, or for none.",
            show_default="as configured",
        ),
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Run every task, and let later runs use what comes out."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Run a pipeline or a task here, without Airflow.

    Exits with 0, with 1 where a task fails, and with 2 where nothing could be run.
    """
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
            reuse="refresh" if refresh else None if reuse is None else "on" if reuse else "off",
            quiet=quiet,
        )
    )


@app.command()
def resume(
    run_id: Annotated[str, typer.Argument(metavar="RUN", show_default=False)],
    *,
    pipeline: Annotated[
        Optional[str],
        typer.Option(
            "--pipeline",
            metavar="NAME",
            help="Whose run, where several have one of the id.",
            show_default=False,
        ),
    ] = None,
    assignments: Assignments = None,
    store: Store = None,
) -> None:
    """Go on with a run of `dbnd run` from where it stopped.

    What it finished stands, unless code or inputs changed since. Hidden parameters are not kept:
    give them again by --set.
    """
    from airflow_provider_dbnd.cli.resume import resume as resume_run

    raise typer.Exit(
        resume_run(run_id, pipeline=pipeline, store=store, assignments=assignments or [])
    )


@app.command()
def replay(
    context: typer.Context,
    pipeline: Annotated[str, typer.Argument(metavar="DAG", show_default=False)],
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help="Its id, or latest.", show_default=False)
    ],
    task: Annotated[str, typer.Argument(metavar="TASK[MAP]", show_default=False)],
    *,
    assignments: Assignments = None,
    store: Store = None,
    environment: Environment = None,
    file: Annotated[
        Optional[str],
        typer.Option(
            "--file",
            metavar="FILE",
            help="The task's file.",
            show_default="where it was, or found here",
        ),
    ] = None,
    recorded_code: Annotated[
        bool, typer.Option("--recorded-code", help="Run the code that travelled with the task.")
    ] = False,
    debug: Annotated[bool, typer.Option("--pdb", help="Debug where it fails.")] = False,
    as_test: Annotated[
        Optional[str],
        typer.Option(
            "--as-test", metavar="FILE", help="Write a pytest case instead.", show_default=False
        ),
    ] = None,
) -> None:
    """Run a recorded task again, here, on its recorded inputs, and say what differs.

    Needs the store alone. Exits with 0 where everything is as recorded, else with 1.
    """
    from airflow_provider_dbnd.cli.past import settings_of
    from airflow_provider_dbnd.cli.replay import replay as replay_task

    raise typer.Exit(
        replay_task(
            pipeline,
            run_id,
            task,
            store=opened(context, store, environment),
            settings=settings_of(environment, airflow=bool(context.obj)),
            file=file,
            recorded_code=recorded_code,
            assignments=assignments or [],
            debug=debug,
            as_test=as_test,
        )
    )


@app.command()
def why(
    target: Target,
    task: Annotated[Optional[str], typer.Argument(help="One task.", show_default="all")] = None,
    assignments: Assignments = None,
    environment: Environment = None,
) -> None:
    """Tell which results of earlier runs would be reused now, and why others would not."""
    from airflow_provider_dbnd.cli.why import why as why_target

    raise typer.Exit(why_target(target, task, assignments or [], environment))


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
    """Show a pipeline's tasks and parameters, each value with its source."""
    from airflow_provider_dbnd.cli.show import show as show_target

    raise typer.Exit(show_target(target, assignments or [], environment))


@app.command()
def check(
    paths: Annotated[list[str], typer.Argument(help="DAG files.", show_default=False)],
) -> None:
    """Check that Airflow would find and parse files, and what a newcomer trips over."""
    from airflow_provider_dbnd.cli.check import check_files

    raise typer.Exit(check_files(paths))


@app.command("test-task")
def run_one_task(
    dag_id: Annotated[str, typer.Argument(help="The DAG.", show_default=False)],
    task_id: Annotated[str, typer.Argument(help="The task in it.", show_default=False)],
    *,
    run_id: Annotated[
        Optional[str],
        typer.Option(
            "--run",
            metavar="RUN",
            help="Past run to take upstream results from.",
            show_default="the newest",
        ),
    ] = None,
    map_index: Annotated[
        int, typer.Option("--map-index", metavar="N", help="Which instance of a mapped task.")
    ] = -1,
    assignments: Assignments = None,
    file: Annotated[
        Optional[str],
        typer.Option(
            "--file", metavar="FILE", help="The DAG's file.", show_default="Airflow's dags folder"
        ),
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


@app.command()
def runs(
    context: typer.Context,
    pipeline: Annotated[
        Optional[str], typer.Argument(help="Only runs of this pipeline.", show_default=False)
    ] = None,
    *,
    limit: Limit = 20,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """List past runs, the newest first."""
    from airflow_provider_dbnd.cli.runs import list_runs

    past = opened(context, store, environment)
    raise typer.Exit(list_runs(past, pipeline, limit=limit, as_json=as_json))


@app.command()
def gc(
    context: typer.Context,
    *,
    keep_last: Annotated[
        Optional[int],
        typer.Option(
            "--keep-last", metavar="N", min=0, help="Keep the last N runs of each pipeline."
        ),
    ] = None,
    keep_days: Annotated[
        Optional[float],
        typer.Option("--keep-days", metavar="DAYS", min=0, help="Keep runs of the last days."),
    ] = None,
    grace: Annotated[
        Optional[str],
        typer.Option(
            "--grace", metavar="TIME", help="Delete nothing younger, as 12h.", show_default="1d"
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it, show what would go.")
    ] = False,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """Show, or delete, runs and objects that nothing keeps.

    A run stays while one rule keeps it, a tag is on it, or a job of it is under way. Without a rule
    all runs stay, and what no run names goes. The rules may be set as [gc] in dbnd.toml.
    """
    from airflow_provider_dbnd.cli.gc import clean_up
    from airflow_provider_dbnd.cli.past import policy_of_settings

    policy = policy_of_settings(
        environment,
        airflow=bool(context.obj),
        keep_last=keep_last,
        keep_days=keep_days,
        grace=grace,
    )
    past = opened(context, store, environment)
    raise typer.Exit(clean_up(past, policy, delete=delete, as_json=as_json))


@app.command()
def fsck(
    context: typer.Context,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Read all objects and compare checksums.")
    ] = False,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """Check that a store keeps what its manifests promise. Changes nothing.

    Exits with 1 where something is missing or damaged, with 2 where there is no store.
    """
    from airflow_provider_dbnd.cli.fsck import check_store

    past = opened(context, store, environment)
    raise typer.Exit(check_store(past, full=full, as_json=as_json))


app.add_typer(artifacts_app, name="artifacts")


def commands() -> list[str]:
    """Return the names of the commands, in the order of the help."""
    return list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def main(arguments: list[str] | None = None, *, airflow: bool = False) -> int:
    """Run the command; return its exit code. Our own errors are a message, not a traceback.

    :param airflow: whether it is `airflow dbnd`, which reads past runs as Airflow is configured.
    """
    from airflow_provider_dbnd.exceptions import DbndError

    try:
        code = int(app(arguments, standalone_mode=False, prog_name="dbnd", obj=airflow) or 0)
    except typer.Exit as exc:
        code = exc.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except DbndError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return WRONG
    except Exception as exc:
        # A usage error of click's shows itself; anything else is a bug of ours.
        if not hasattr(exc, "show"):
            raise
        exc.show()
        return int(getattr(exc, "exit_code", WRONG))
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code


def entry() -> None:
    """Console script."""
    sys.exit(main())
