"""A user's input on S3 that is replaced while it is read, on moto."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moto_s3 import BUCKET

from airflow_provider_dbnd.core.storage import transfer, transfer_s3
from airflow_provider_dbnd.core.storage.store import ArtifactStore
from airflow_provider_dbnd.exceptions import StoreError

MB = 2**20


@pytest.fixture
def replaced(client: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the object replaced, once each, after the first range of it arrived."""
    monkeypatch.setattr(transfer, "CONCURRENCY", 1)
    monkeypatch.setattr(transfer, "LARGEST_PART", 8 * MB)
    download = transfer_s3.download

    def by(*versions: bytes) -> None:
        rest = list(versions)
        client.put_object(Bucket=BUCKET, Key="in.csv", Body=rest.pop(0))

        async def downloading(fs: Any, path: str, start: int, end: int, write: Any) -> int:
            got = await download(fs, path, start, end, write)
            if start == 0 and rest:
                client.put_object(Bucket=BUCKET, Key="in.csv", Body=rest.pop(0))
            return got

        monkeypatch.setattr(transfer_s3, "download", downloading)

    return by


@pytest.mark.parametrize("size", [30 * MB, 26 * MB, 34 * MB])
def test_an_input_is_of_one_version(
    replaced: Callable[..., None], tmp_path: Path, size: int
) -> None:
    replaced(b"a" * 30 * MB, b"b" * size)

    fetched = ArtifactStore(f"s3://{BUCKET}/s").fetch_input(f"s3://{BUCKET}/in.csv", str(tmp_path))

    assert Path(fetched.path).read_bytes() == b"b" * size


def test_an_input_that_never_rests_is_told(
    replaced: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_CONFLICT_PAUSES", (0.01, 0.01))
    replaced(*(letter * 20 * MB for letter in (b"a", b"b", b"c", b"d", b"e")))

    with pytest.raises(StoreError, match=r"cannot read s3://.*in\.csv: .*replaced again and again"):
        ArtifactStore(f"s3://{BUCKET}/s").fetch_input(f"s3://{BUCKET}/in.csv", str(tmp_path))

    assert not [each for each in tmp_path.rglob("*") if each.is_file()]
