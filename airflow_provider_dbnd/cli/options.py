"""Options that several commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from airflow_provider_dbnd.core.storage.store import ArtifactStore

Environment = Annotated[
    Optional[str],
    typer.Option("--env", "-e", metavar="ENV", help="Use [environments.ENV] of dbnd.toml."),
]
Store = Annotated[
    Optional[str],
    typer.Option("--store", metavar="URL", help="The store.", show_default="DBND_STORE, dbnd.toml"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", min=1, help="Show at most N, the newest.")
]


def opened(context: typer.Context, store: str | None, environment: str | None) -> ArtifactStore:
    """Return the store that a command on past runs reads, by the options above."""
    from airflow_provider_dbnd.cli.past import open_store

    return open_store(store, environment, airflow=bool(context.obj))
