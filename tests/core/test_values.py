"""What travels between tasks: small JSON as itself, everything else by reference."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
from local_project import Project
from pandas import DataFrame

from airflow_provider_dbnd import Artifact, output, parameter, pipeline, task
from airflow_provider_dbnd.core.artifacts import is_reference
from airflow_provider_dbnd.core.values import is_inline
from airflow_provider_dbnd.exceptions import (
    ArtifactNotFoundError,
    FormatError,
    FormatNotFoundError,
    ParameterError,
)

TABLE = DataFrame({"x": [1, 2, 3], "y": ["a", "b", "c"]})


class Model(pydantic.BaseModel):
    name: str
    weights: list[float]


@dataclass
class Report:
    table: DataFrame
    rows: int


class Unknown:
    pass


RETURNED: dict[str, Any] = {}


@task
def make() -> Any:
    return RETURNED["value"]


@task
def table() -> DataFrame:
    return TABLE


@task
def tables() -> list[DataFrame]:
    return [TABLE[:1], TABLE[1:]]


@task
def named_tables() -> dict[str, DataFrame]:
    return {"a": TABLE[:1], "b": TABLE[1:]}


@task
def several() -> tuple[DataFrame, dict[str, DataFrame], int]:
    return TABLE, {"a": TABLE[:2]}, 4


@task
def day() -> dt.date:
    return dt.date(2024, 1, 2)


@task
def model() -> Model:
    return Model(name="m", weights=[1.5])


@task
def report() -> Report:
    return Report(TABLE, 3)


@task
def big_dict() -> dict[str, dict[str, int]]:
    return {"big": {str(n): n for n in range(1000)}}


@task
def a_file() -> Path:
    path = Path("made.txt")
    path.write_text("content")
    return path


@task
def stream() -> Iterator[DataFrame]:
    yield TABLE[:2]
    yield TABLE[2:]


@task
def rows_of(data: DataFrame) -> int:
    return len(data)


@task
def rows_by_name(data: dict[str, DataFrame]) -> dict[str, int]:
    return {name: len(d) for name, d in data.items()}


@task
def rows_of_part(part: Report) -> int:
    return len(part.table) + part.rows


@task
def rows_of_each(data: list[DataFrame]) -> list[int]:
    return [len(d) for d in data]


@task
def rows_of_named(data: dict[str, DataFrame]) -> dict[str, int]:
    return {k: len(d) for k, d in data.items()}


@task
def rows_of_arrow(data: pa.Table) -> int:
    return data.num_rows


@task
def rows_of_polars(data: pl.DataFrame) -> int:
    return data.height


@task
def rows_of_report(r: Report) -> int:
    return len(r.table) + r.rows


@task
def rows_of_stream(data: Iterator[DataFrame]) -> list[int]:
    return [len(part) for part in data]


@task
def text_of(path: Path) -> str:
    return path.read_text()


@task
def digest_of(data: Artifact) -> str:
    return data.digest


@task
def number_of(n: int) -> int:
    return n


@task
def kind_of(data: Any) -> str:
    return type(data).__name__


@task
def year_of(when: dt.date, name: Model) -> str:
    return f"{when.year} {name.name}"


def encoded(project: Project, runnable: Any, name: str = "result") -> Any:
    outcome = project.run(runnable).outcomes[runnable.definition.name]
    if outcome.error:
        raise outcome.error
    return outcome.manifests[0].outputs[name]


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, "text", [1, [2, "x"]], {"a": {"b": None}}],
    ids=repr,
)
def test_small_plain_json_stays_inline(project: Project, value: Any) -> None:
    RETURNED["value"] = value

    assert encoded(project, make) == value
    assert project.value(make) == value


@pytest.mark.parametrize(
    ("value", "inline"),
    [
        (np.float64(1.5), 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        ({"accuracy": np.float64(0.5), "n": [np.int32(1)]}, {"accuracy": 0.5, "n": [1]}),
    ],
    ids=repr,
)
def test_numpy_scalars_become_pythons_numbers(project: Project, value: Any, inline: Any) -> None:
    RETURNED["value"] = value

    result = encoded(project, make)

    assert result == inline
    assert type(result) is type(inline)


def test_an_array_of_no_dimension_stays_an_array(project: Project) -> None:
    RETURNED["value"] = {"threshold": np.array(5.0)}

    found = project.value(make)["threshold"]

    assert type(found) is np.ndarray
    assert (found.shape, found.dtype, found.item()) == ((), np.dtype("float64"), 5.0)


@pytest.mark.parametrize(
    "value",
    [
        float("inf"),
        "x" * 2000,
        list(range(1000)),
        dt.date(2024, 1, 2),
        dt.timedelta(days=1),
        b"bytes",
        np.arange(3),
    ],
    ids=lambda v: type(v).__name__,
)
def test_everything_else_becomes_an_artifact_and_comes_back(project: Project, value: Any) -> None:
    @pipeline
    def p():
        return kind_of(make())

    RETURNED["value"] = value

    assert is_reference(encoded(project, make))
    kinds = (type(value).__name__, "str")  # without an annotation JSON gives text for dates
    assert project.value(p) in kinds


def test_nan_is_never_inline(project: Project) -> None:
    assert not is_inline(math.nan)
    assert not is_inline([1, {"a": math.nan}])
    RETURNED["value"] = math.nan
    assert math.isnan(project.value(make))


def test_typed_results_come_back_as_their_types(project: Project) -> None:
    @pipeline
    def p():
        return year_of(day(), model()), rows_of_report(report()), report().table

    text, rows, frame = project.value(p)

    assert (text, rows) == ("2024 m", 6)
    pd.testing.assert_frame_equal(frame, TABLE)


def test_a_frame_is_given_in_the_container_the_consumer_asks_for(project: Project) -> None:
    @pipeline
    def p():
        t = table()
        return rows_of(t), rows_of_arrow(t), rows_of_polars(t), kind_of(t)

    assert project.value(p) == (3, 3, 3, "DataFrame")


def test_lists_dicts_and_tuples_of_frames_are_stored_element_by_element(project: Project) -> None:
    @pipeline
    def p():
        first, named, n = several()
        return (
            rows_of_each(tables()),
            rows_of_named(named_tables()),
            rows_of(named["a"]),
            rows_of_each([first, table()]),
            number_of(n),
            rows_of.expand(data=tables()),
            kind_of(tables()),
        )

    assert project.value(p) == ([1, 2], {"a": 1, "b": 2}, 2, [3, 3], 4, [1, 2], "list")
    assert [is_reference(e) for e in encoded(project, tables)] == [True, True]
    assert sorted(encoded(project, named_tables)) == ["a", "b"]


def test_a_part_of_a_stored_object_is_taken_when_it_is_loaded(project: Project) -> None:
    @pipeline
    def p():
        return number_of(big_dict()["big"]["7"])

    assert is_reference(encoded(project, big_dict))
    assert project.value(p) == 7


def test_files_travel_as_their_content(project: Project) -> None:
    @pipeline
    def p():
        return text_of(a_file())

    assert encoded(project, a_file)["uri"].endswith(".txt")
    Path("made.txt").unlink()
    assert project.value(p) == "content"
    assert project.run(a_file).value().read_text() == "content"


def test_an_artifact_parameter_gets_the_reference(project: Project) -> None:
    @pipeline
    def p():
        return digest_of(table())

    assert project.value(p) == encoded(project, table)["digest"]


def test_a_generator_is_one_stored_table_and_streams_back(project: Project) -> None:
    @pipeline
    def p():
        return rows_of(stream()), rows_of_stream(stream()), rows_of_stream(table())

    whole, *streamed = project.value(p)

    assert whole == 3
    assert [sum(parts) for parts in streamed] == [3, 3]


def test_equal_data_is_one_object_and_keys_are_readable(project: Project) -> None:
    first, second = encoded(project, table), encoded(project, table)

    assert first == second
    assert first["uri"].startswith(f"{project.store.url}/table/table/result/{first['digest']}")
    assert len(json.dumps(first)) < 4096
    assert (first["rows"], first["type"]) == (3, "pandas.DataFrame")


def test_uris_are_loaded_by_extension_one_or_many(project: Project) -> None:
    TABLE.to_parquet("a.parquet")
    TABLE.to_csv("b.csv", index=False)
    Path("folder").mkdir()
    TABLE.to_parquet("folder/1.parquet")
    TABLE.to_parquet("folder/2.parquet")

    assert project.value(rows_of, {"data": "a.parquet"}) == 3
    assert project.value(rows_of, {"data": "b.csv"}) == 3
    assert project.value(rows_of, {"data": "folder"}) == 6
    assert project.value(rows_of, {"data": "folder/*.parquet"}) == 6
    assert project.value(rows_of_each, {"data": "a.parquet, b.csv"}) == [3, 3]
    assert project.value(rows_of_each, {"data": "folder/*"}) == [3, 3]
    result = project.run(rows_of, {"data": "b.csv"}).outcomes["rows_of"].manifests[0]
    (read,) = result.inputs["data"]
    assert read["uri"] == f"file://{project.folder}/b.csv"
    assert read["checksum"].startswith("blake3:")


def test_each_file_of_a_folder_is_read_by_its_own_extension(project: Project) -> None:
    Path("mixed").mkdir()
    TABLE.to_csv("mixed/1.csv", index=False)
    TABLE.to_csv("mixed/2.csv.gz", index=False)
    TABLE.to_csv("mixed/3.tsv", index=False, sep="\t")
    TABLE.to_parquet("mixed/4.parquet")

    assert project.value(rows_of, {"data": "mixed"}) == 12
    assert project.value(rows_of, {"data": "mixed/*"}) == 12
    assert project.value(rows_of, {"data": ["mixed/4.parquet", "mixed/1.csv", "mixed/1.csv"]}) == 9


def test_a_declared_format_is_that_of_every_file(project: Project) -> None:
    Path("parts").mkdir()
    TABLE.to_csv("parts/1.csv", index=False)
    TABLE.to_csv("parts/2.txt", index=False)
    TABLE.to_csv("parts/part-3", index=False)

    @task
    def rows(data: Annotated[DataFrame, parameter.csv]) -> int:
        return len(data)

    assert project.value(rows, {"data": "parts"}) == 9


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes.md", "format 'text' does not hold a pandas.DataFrame; formats that do: "),
        ("notes.rst", "there is no format for the extension 'rst'; formats: "),
        ("README", "cannot tell the format of a file without an extension, to be read as "),
    ],
)
def test_a_file_that_is_no_data_among_others_is_named(
    project: Project, name: str, reason: str
) -> None:
    Path("mixed").mkdir()
    TABLE.to_csv("mixed/1.csv", index=False)
    Path("mixed", name).write_text("notes")

    with pytest.raises(FormatNotFoundError) as error:
        project.value(rows_of, {"data": "mixed"})

    assert (
        f"file://{project.folder}/mixed/{name}, one of 2 files to be read as one: {reason}"
        in str(error.value)
    )
    assert str(error.value).endswith(
        " Move it away, name the others by a pattern such as data/*.csv, or declare a format for "
        "all, as parameter.csv does."
    )


def test_lists_and_dicts_of_files_are_given_as_json(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    TABLE.to_csv("a.csv", index=False)
    TABLE.to_csv("b.csv", index=False)

    @pipeline
    def p(data: str):
        return rows_of(data)  # type: ignore[arg-type]

    both = '["a.csv", "b.csv"]'
    assert project.value(rows_of, {"data": both}) == 6
    assert project.value(p, {"data": both}) == 6
    assert project.value(rows_of_each, {"data": both}) == [3, 3]
    assert project.value(rows_by_name, {"data": '{"x": "b.csv", "y": ["b.csv", "b.csv"]}'}) == {
        "x": 3,
        "y": 6,
    }
    assert project.value(rows_of_part, {"part": '{"table": "b.csv", "rows": 2}'}) == 5
    monkeypatch.setenv("DBND__ROWS_BY_NAME__DATA", '{"z": "b.csv"}')
    assert project.value(rows_by_name) == {"z": 3}
    with pytest.raises(ParameterError, match=r'Write it as JSON: \{"name": value\}\.$'):
        project.value(rows_by_name, {"data": "b.csv"})
    with pytest.raises(ParameterError, match=r"It is not valid JSON: "):
        project.value(rows_by_name, {"data": '{"x": b.csv}'})


@pytest.mark.parametrize("given", ["", " ", "a.csv,"])
def test_an_empty_path_is_refused(project: Project, given: str) -> None:
    TABLE.to_csv("a.csv", index=False)

    with pytest.raises(ParameterError) as error:
        project.value(rows_of_each, {"data": given})

    assert str(error.value) == (
        "parameter 'data' of task 'rows_of_each' (from --set): an empty path names nothing: expected "
        "the path or URL of a file, a folder or a pattern. '.' is the working folder."
    )
    if given != "a.csv,":
        with pytest.raises(ParameterError, match="an empty path names nothing"):
            project.value(rows_of, {"data": given})
    assert project.value(rows_of_each, {"data": "."}) == [3]


def test_set_feeds_a_file_in_place_of_an_upstream_result(project: Project) -> None:
    TABLE[:1].to_csv("one.csv", index=False)

    @pipeline
    def p():
        return rows_of(table())

    assert project.value(p, {"rows_of.data": "one.csv"}) == 1


def test_an_object_in_memory_is_checked_and_converted(project: Project) -> None:
    @pipeline
    def p():
        return rows_of_arrow(TABLE), rows_of(pl.DataFrame({"x": [1]}))  # type: ignore[arg-type]

    @pipeline
    def wrong():
        return rows_of(3)  # type: ignore[arg-type]

    assert project.value(p) == (3, 1)
    with pytest.raises(ParameterError) as error:
        project.value(wrong)
    assert str(error.value) == (
        "parameter 'data' of task 'rows_of': expected DataFrame, got 3 (from call). Give a path, a URL "
        "or a DataFrame."
    )


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (
            "no.csv",
            ArtifactNotFoundError,
            "parameter 'data' of task 'rows_of' (from --set): 'no.csv' matches no file: expected a "
            "file, a folder with files or a pattern at file://{folder}/no.csv. Relative paths "
            "start from {folder}",
        ),
        (
            "data.xyz",
            FormatNotFoundError,
            "parameter 'data' of task 'rows_of' (from --set): there is no format for the extension "
            "'xyz'; formats: ",
        ),
        ("cut.parquet", FormatError, "parameter 'data' of task 'rows_of' (from --set): "),
    ],
)
def test_a_file_that_cannot_be_loaded_names_task_parameter_and_source(
    project: Project, path: str, error: type[Exception], message: str
) -> None:
    Path("data.xyz").write_text("x")
    TABLE.to_parquet("whole.parquet")
    Path("cut.parquet").write_bytes(Path("whole.parquet").read_bytes()[:-20])

    with pytest.raises(error) as raised:
        project.value(rows_of, {"data": path})

    assert str(raised.value).startswith(message.format(folder=project.folder))


def test_a_type_no_format_stores_names_task_and_output(project: Project) -> None:
    RETURNED["value"] = Unknown()

    with pytest.raises(FormatNotFoundError) as error:
        project.value(make)

    assert str(error.value).startswith(
        "output 'result' of task 'make': no format stores a test_values.Unknown unless one is declared:"
    )


@task(result=output.csv(path="out/{region}-{run_id}.csv"))
def exported(region: str) -> DataFrame:
    return TABLE


@task
def exported_json(name: str = "x") -> Annotated[dict[str, int], output(path="{store}/{name}.json")]:
    return {"a": 1}


@task(result=output(path="{nobody}.csv"))
def wrong_path() -> DataFrame:
    return TABLE


@task(result=output(path="x.csv"))
def many_files() -> list[DataFrame]:
    return [TABLE]


def test_an_output_is_published_where_its_path_says(project: Project) -> None:
    result = project.run(exported_json, {"name": "n"})
    published = result.outcomes["exported_json"].manifests[0].published["result"]

    assert published == f"{project.store.url}/n.json"
    assert json.loads(project.store.get_bytes(published)) == {"a": 1}
    assert result.value() == {"a": 1}


@pytest.mark.parametrize("folder", [".", "memory://questions"], ids=["local", "remote"])
def test_a_name_may_have_a_question_mark(project: Project, folder: str) -> None:
    TABLE.to_csv(f"{folder}/really?.csv", index=False)

    assert project.value(rows_of, {"data": f"{folder}/really?.csv"}) == 3


def test_a_relative_path_in_code_starts_from_the_codes_folder(project: Project) -> None:
    result = project.run(exported, {"region": "eu"}, run_id="r1")
    published = result.outcomes["exported"].manifests[0].published["result"]

    file = Path(__file__).parent / "out" / "eu-r1.csv"
    try:
        assert published == f"file://{file}"
        assert len(pd.read_csv(file)) == 3
    finally:
        file.unlink()
        file.parent.rmdir()


def test_a_value_cannot_lead_a_path_out_of_its_folder(project: Project) -> None:
    with pytest.raises(ParameterError, match=r"output .result. of task .exported.: path .*region"):
        project.value(exported, {"region": "../../evil"})


def test_a_path_that_cannot_be_filled_or_takes_one_file_only_is_an_error(project: Project) -> None:
    with pytest.raises(ParameterError) as unknown:
        project.value(wrong_path)
    assert str(unknown.value) == (
        "output 'result' of task 'wrong_path': path '{nobody}.csv' cannot be filled in: 'nobody' is "
        "not known. It may name output, pipeline, run_id, store, task, in braces."
    )
    with pytest.raises(FormatError, match="takes one file, but the value is several"):
        project.value(many_files)


def test_hidden_values_are_masked_in_the_manifest_wherever_they_go(project: Project) -> None:
    @pipeline
    def p(token: Annotated[str, parameter(hidden=True)] = "hush-hush"):
        return kind_of(token), kind_of([token, 1]), fails(token)

    project.run(p, {"token": "very-secret"})

    kept = b"".join(project.store.get_bytes(i.key) for i in project.store.list("_runs"))
    assert b"very-secret" not in kept
    assert kept.count(b"***") >= 4


@task
def fails(token: Annotated[str, parameter(hidden=True)]) -> int:
    raise ValueError(f"cannot log in with {token}")


def test_an_input_may_start_from_the_store(project: Project) -> None:
    @task
    def publish(n: int) -> Annotated[DataFrame, output(path="{store}/parts/{n}.parquet")]:
        return DataFrame({"x": [n]})

    @task
    def combine(after: list[Artifact], parts: DataFrame = "{store}/parts") -> list[int]:
        return [int(x) for x in parts["x"]]

    @pipeline
    def flow() -> Any:
        return combine([publish(1), publish(2)])

    assert project.value(flow) == [1, 2]


def test_a_published_path_keeps_its_compression(project: Project, tmp_path: Path) -> None:
    @task
    def publish(folder: str) -> Annotated[DataFrame, output(path="{folder}/x.csv.gz")]:
        return DataFrame({"x": [1, 2]})

    project.run(publish, {"folder": str(tmp_path)})

    assert (tmp_path / "x.csv.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert pd.read_csv(tmp_path / "x.csv.gz").x.tolist() == [1, 2]


@task
def take(of: Annotated[Any, parameter.pickle]) -> str:
    return type(of).__name__


def test_an_object_that_cannot_be_loaded_is_named_by_its_artifact(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task
    def unknown() -> Annotated[Any, output.pickle]:
        return Unknown()

    monkeypatch.setenv("DBND_STORE", "memory://named/store")
    artifact = project.run(unknown).outcomes["unknown"].manifests[0].outputs["result"]
    monkeypatch.delattr(sys.modules[__name__], "Unknown")

    with pytest.raises(FormatError) as error:
        project.value(take, {"of": artifact})

    assert f"{artifact['uri']}: " in str(error.value)
    assert f"it needs {__name__}.Unknown, which is not there" in str(error.value)
