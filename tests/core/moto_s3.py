"""A bucket of an S3 server in this process."""

from __future__ import annotations

from typing import Any

BUCKET = "sending"


def keys(client: Any) -> list[str]:
    """Return the names of all objects."""
    return [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def uploads(client: Any) -> list[Any]:
    """Return the uploads that were begun and neither ended nor aborted."""
    found: list[Any] = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return found
