"""Row groups that are encoded side by side make the file that pyarrow writes in one thread."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contract import read, write
from frames import frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_dbnd.core.formats import parquet_groups
from airflow_provider_dbnd.core.formats.parquet_footer import enclosed, footer_of, moved
from airflow_provider_dbnd.core.formats.parquet_groups import RowGroups
from airflow_provider_dbnd.exceptions import FormatError

METADATA = {"some": "metadata", "more": "x" * 500}

OPTIONS: list[dict[str, Any]] = [
    {},
    {"compression": "zstd", "compression_level": 1, "use_dictionary": ["s"]},
    {"compression": "none", "write_statistics": False, "use_dictionary": False},
    {"data_page_version": "2.0", "store_schema": False, "version": "2.4"},
]


# Before 18, metadata of each column, with positions in it, follows its data for nobody to read.
same_bytes = pytest.mark.skipif(
    int(pa.__version__.partition(".")[0]) < 18, reason="files hold positions that are never read"
)


def by_pyarrow(tables: Iterable[Any], schema: Any, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, write_page_checksum=True, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(len(table), 1))
        writer.add_key_value_metadata(METADATA)
    return bytes(sink.getvalue())


def by_us(tables: Iterable[Any], schema: Any, **options: Any) -> bytes:
    groups = RowGroups(file := io.BytesIO(), schema, options)
    for _ in groups.write(tables):
        pass
    groups.finish(METADATA)
    return file.getvalue()


def cut(table: Any, rows: int) -> list[Any]:
    return [table.slice(start, rows) for start in range(0, max(len(table), 1), rows)]


@same_bytes
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frame=frames(), rows=st.integers(1, 5), options=st.sampled_from(OPTIONS))
def test_any_frame_becomes_the_file_of_pyarrow_byte_for_byte(
    frame: pd.DataFrame, rows: int, options: dict[str, Any]
) -> None:
    try:
        table = pa.Table.from_pandas(frame)
        expected = by_pyarrow(cut(table, rows), table.schema, **options)
    except (pa.ArrowException, OSError):
        return  # what parquet cannot hold

    assert by_us(cut(table, rows), table.schema, **options) == expected


@same_bytes
@pytest.mark.parametrize("options", OPTIONS)
def test_long_lists_and_large_numbers_in_a_footer_are_those_of_pyarrow(
    options: dict[str, Any],
) -> None:
    """40 columns in 130 row groups and some MB: sizes and positions of all lengths."""
    rows = 130 * 600
    columns = {f"column {n}": np.random.default_rng(n).random(rows) for n in range(38)}
    lists = pa.array([[{"deep": n}, None] for n in range(rows)])
    table = pa.table({**columns, "s": [f"text {n % 9}" for n in range(rows)], "lists": lists})
    expected = by_pyarrow(cut(table, 600), table.schema, **options)

    found = by_us(cut(table, 600), table.schema, **options)

    assert found == expected
    assert pq.read_metadata(io.BytesIO(found)).num_row_groups == 130
    assert pq.read_table(io.BytesIO(found)).equals(table)


@pytest.mark.parametrize("by", [0, 1, 100, 2**31, 2**40])
def test_positions_of_any_size_are_moved(by: int) -> None:
    table = pa.table({"a": [1, 2], "s": ["x", "x"]})
    file = by_pyarrow([table, table], table.schema)
    before = pq.read_metadata(io.BytesIO(file))

    footer = moved(footer_of(memoryview(file)), by=by, after=300)

    after = pq.read_metadata(io.BytesIO(enclosed(footer)))
    assert after.metadata == before.metadata
    for group in range(2):
        for column in range(2):
            one, other = (m.row_group(group).column(column) for m in (before, after))
            assert other.data_page_offset == one.data_page_offset + by
            assert other.dictionary_page_offset == one.dictionary_page_offset + by
            assert other.statistics.min == one.statistics.min
            assert other.total_compressed_size == one.total_compressed_size


def test_row_groups_are_numbered_on() -> None:
    """A file with one row group, which has the number 5 alone: pyarrow 18 writes it, 20 does not."""
    footer = b"\x49\x1c\x74\x0a\x00\x00"

    assert moved(memoryview(footer), by=0, after=300) == b"\x49\x1c\x74\xe2\x04\x00\x00"


def test_row_groups_are_encoded_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either of two waits for the other one, or neither ends."""
    table = pa.table({"a": [1]})
    groups = RowGroups(io.BytesIO(), table.schema, {})
    meeting = threading.Barrier(2, timeout=10)
    encoded = groups._encoded

    def encode(table: Any) -> Any:
        meeting.wait()
        return encoded(table)

    monkeypatch.setattr(groups, "_encoded", encode)
    monkeypatch.setattr(parquet_groups, "available_cores", lambda: 2)
    with ThreadPoolExecutor(2) as two:  # wherever this runs
        monkeypatch.setattr(parquet_groups, "working_threads", lambda: two)

        assert len(list(groups.write([table, table]))) == 2


def pulled_ahead(table: Any, count: int) -> int:
    """Return how many tables more than it has written a writer takes at most."""
    taken = written = ahead = 0

    def tables() -> Iterator[Any]:
        nonlocal taken, ahead
        for _ in range(count):
            taken += 1
            ahead = max(ahead, taken - written)
            yield table

    for _ in RowGroups(io.BytesIO(), table.schema, {}).write(tables()):
        written += 1
    assert written == count
    return ahead


def test_memory_holds_a_few_row_groups_and_one_where_they_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet_groups, "available_cores", lambda: 4)
    table = pa.table({"a": np.arange(1000)})

    assert pulled_ahead(table, 30) <= 6
    monkeypatch.setattr(parquet_groups, "_IN_MEMORY", table.nbytes)
    assert pulled_ahead(table, 30) <= 2


def test_an_error_in_a_row_group_comes_out_and_nothing_runs_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pa.table({"a": [1]})
    groups = RowGroups(io.BytesIO(), table.schema, {})
    running: set[int] = set()

    def encode(part: Any) -> Any:
        running.add(id(part))
        if part is bad:
            raise pa.ArrowInvalid("no such value")
        threading.Event().wait(0.2)
        running.discard(id(part))
        return pa.py_buffer(b"")

    bad, slow = table.slice(0), table.slice(0)
    monkeypatch.setattr(groups, "_encoded", encode)

    with pytest.raises(pa.ArrowInvalid, match="no such value"):
        list(groups.write([bad, slow, slow]))
    assert running == {id(bad)}


def test_what_parquet_refuses_is_told_wherever_it_comes(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([0, 2**62], pa.timestamp("s"))})
    try:
        by_pyarrow([table], table.schema)
        pytest.skip("this pyarrow lets timestamps overflow")
    except (pa.ArrowInvalid, OSError):
        pass

    with pytest.raises(FormatError, match=r"parquet cannot hold this table.*output.arrow"):
        write("parquet", table, tmp_path / "f", row_group_size=1)


def test_row_groups_of_long_rows_have_fewer_of_them(tmp_path: Path) -> None:
    rows = 300_000
    short = pa.table({"x": np.zeros(rows)})
    long = pa.table({f"x{n}": np.zeros(rows) for n in range(100)})

    for table, groups in ((short, 1), (long, 3)):
        write("parquet", table, tmp_path / "f")
        assert pq.read_metadata(tmp_path / "f").num_row_groups == groups
        assert read("parquet", tmp_path / "f", pa.Table).equals(table)
