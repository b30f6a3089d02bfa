"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

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
