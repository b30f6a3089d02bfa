"""``airflow dbnd``: the same command below Airflow's own."""

from __future__ import annotations

import sys
from typing import Any


def get_commands() -> list[Any]:
    """Return the commands for Airflow's CLI; called on every ``airflow`` invocation."""
    import argparse

    from airflow.cli import cli_config

    from airflow_provider_dbnd.cli.main import commands

    _arg: Any = cli_config.Arg  # untyped

    return [
        cli_config.ActionCommand(
            name="dbnd",
            help="Run, inspect and debug typed pipelines",
            description=f"The commands of dbnd: {', '.join(commands())}. "
            "`airflow dbnd COMMAND --help` describes each.",
            func=_run,
            args=(
                # Options before the command: argparse's remainder begins at a word without a dash.
                _arg(("-v", "--verbose"), action="store_true", help="log what is read and written"),
                _arg(("--version",), action="store_true", help="show the version"),
                _arg(("arguments",), nargs=argparse.REMAINDER, help="arguments of dbnd"),
            ),
        )
    ]


def _run(namespace: Any) -> None:
    from airflow_provider_dbnd.cli.main import main

    options = [f"--{name}" for name in ("verbose", "version") if getattr(namespace, name)]
    sys.exit(main([*options, *namespace.arguments] or ["--help"], airflow=True))
