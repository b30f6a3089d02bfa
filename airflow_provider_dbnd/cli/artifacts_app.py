"""``dbnd artifacts``: the words of its commands; what they do is in :mod:`.artifacts`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from airflow_provider_dbnd.cli.options import AsJson, Environment, Limit, Store, opened

app = typer.Typer(
    help="Look at outputs of past runs, compare, export and tag them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_FORM = "PIPELINE/TASK/OUTPUT[@VERSION]"

Name = Annotated[str, typer.Argument(metavar="NAME", help=f"{_FORM}.", show_default=False)]
Tag = Annotated[str, typer.Argument(metavar="TAG", help="Such as prod.", show_default=False)]


@app.command("list")
def list_command(
    context: typer.Context,
    name: Annotated[
        Optional[str],
        typer.Argument(metavar="[PIPELINE[/TASK[/OUTPUT]]]", show_default=False),
    ] = None,
    *,
    tags: Annotated[bool, typer.Option("--tags", help="List tags and what they are on.")] = False,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """List outputs with their newest version, or tags."""
    from airflow_provider_dbnd.cli.artifacts import list_artifacts

    past = opened(context, store, environment)
    raise typer.Exit(list_artifacts(past, name, tags_only=tags, as_json=as_json))


@app.command()
def show(
    context: typer.Context,
    name: Name,
    *,
    runs: Annotated[
        int,
        typer.Option(
            "--runs", metavar="N", min=0, help="Look for readers in the N newest runs too."
        ),
    ] = 0,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """Show a version: schema, size, who made it from what, and who read it."""
    from airflow_provider_dbnd.cli.artifacts import show_artifact

    past = opened(context, store, environment)
    raise typer.Exit(show_artifact(past, name, runs=runs, as_json=as_json))


@app.command()
def get(
    context: typer.Context,
    name: Name,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A path or a URL.", show_default=False)
    ],
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace FILE.")] = False,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """Copy a version to a file, converted where the extension is of another format."""
    from airflow_provider_dbnd.cli.artifacts_get import get_artifact

    past = opened(context, store, environment)
    raise typer.Exit(get_artifact(past, name, file, force=force, as_json=as_json))


@app.command()
def history(
    context: typer.Context,
    name: Name,
    *,
    limit: Limit = 20,
    tags: Annotated[bool, typer.Option("--tags", help="Show promotions instead.")] = False,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """List the versions of an output over its runs, and which changed."""
    from airflow_provider_dbnd.cli.artifacts import show_history, show_promotions

    past = opened(context, store, environment)
    command = show_promotions if tags else show_history
    raise typer.Exit(command(past, name, limit=limit, as_json=as_json))


@app.command()
def diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(metavar="A", help=f"{_FORM}.", show_default=False)],
    after: Annotated[
        Optional[str],
        typer.Argument(metavar="[B]", help=f"{_FORM}, or @VERSION of A.", show_default=False),
    ] = None,
    *,
    keys: Annotated[
        Optional[list[str]],
        typer.Option("--key", "-k", metavar="COLUMN", help="Match rows by this column."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="Show at most N values.")
    ] = 10,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """Compare two versions: schema, rows, statistics, values.

    Without B, A is compared with the newest version, and the newest with the last that was other.
    Exits with 1 where they differ.
    """
    from airflow_provider_dbnd.cli.artifacts_diff import diff_artifacts

    past = opened(context, store, environment)
    raise typer.Exit(
        diff_artifacts(past, before, after, keys=keys or [], limit=limit, as_json=as_json)
    )


@app.command()
def tag(
    context: typer.Context,
    name: Name,
    tag: Tag,
    *,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """Promote a version: move a tag to it."""
    from airflow_provider_dbnd.cli.artifacts import tag_artifact

    past = opened(context, store, environment)
    raise typer.Exit(tag_artifact(past, name, tag, as_json=as_json))


@app.command()
def untag(
    context: typer.Context,
    name: Name,
    tag: Tag,
    *,
    as_json: AsJson = False,
    store: Store = None,
    environment: Environment = None,
) -> None:
    """Take a tag off an output; its history stays."""
    from airflow_provider_dbnd.cli.artifacts import untag_artifact

    past = opened(context, store, environment)
    raise typer.Exit(untag_artifact(past, name, tag, as_json=as_json))
