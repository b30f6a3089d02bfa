"""Where values come from: the one order, unknown keys, bad values, relative paths, dbnd.toml."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from local_project import Project
from pandas import DataFrame

from airflow_provider_dbnd import LOGICAL_DATE, parameter, pipeline, task
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.core.resolution import (
    PRECEDENCE,
    Sources,
    from_call,
    from_default,
    from_environment,
    from_run_time,
    from_settings,
    resolve,
)
from airflow_provider_dbnd.core.settings import Layer, Settings, load_settings
from airflow_provider_dbnd.exceptions import ConfigurationError, ParameterError


@task
def train(n: int = 1, alpha: float = 0.5) -> int:
    return n


@task
def needs(n: int) -> int:
    return n


@task
def secret(token: Annotated[str, parameter(hidden=True, min_length=20)]) -> int:
    return len(token)


@task
def read(path: Path = Path("from_default.txt")) -> str:
    return path.read_text()


@task
def of_day(day: dt.date = LOGICAL_DATE) -> str:
    return day.isoformat()


@task
def of_note(note: str | None = "n", data: DataFrame | None = None, any_: Any = 1) -> str:
    return repr((note, data, any_))


@task
def of_days(days: list[dt.date]) -> str:
    return repr(days)


@task
def of_time(when: dt.datetime) -> str:
    return repr(when)


@task
def of_text(text: str) -> str:
    return text


@task
def shown(value: Any) -> str:
    return repr(value)


@task
def of_options(options: dict[str, int]) -> int:
    return options["a"]


@pipeline
def root(n: int = 1):
    return train(n)


@pipeline
def root_of_options(options: dict[str, int]):
    return of_options(options)


#: How each source gives its own name, the strongest first.
GIVES: dict[Any, Any] = {
    from_run_time: {"run_time": (Layer(values={"train.n": "10"}, source="--set", base=""),)},
    from_call: {"given": 20},
    from_environment: {"environ": {"DBND__TRAIN__N": "30"}},
    from_settings: {
        "settings": Settings(
            base="",
            store="",
            store_source="",
            parameters=(Layer(values={"train.n": 40}, source="dbnd.toml", base=""),),
        )
    },
    from_default: {},
}


def found(*givers: Any) -> Any:
    options: dict[str, Any] = {
        "settings": Settings(base="", store="", store_source=""),
        "environ": {},
        "given": MISSING,
    }
    for giver in givers:
        options.update(GIVES[giver])
    given = options.pop("given")
    spec = train.definition.signature.inputs["n"]
    value = resolve("train", spec, given, Sources(root="root", **options))
    assert value is not None
    return value.value, value.source


def test_the_order_is_one_visible_tuple() -> None:
    assert (from_run_time, from_call, from_environment, from_settings, from_default) == PRECEDENCE


@pytest.mark.parametrize(
    ("stronger", "weaker"), list(itertools.pairwise(PRECEDENCE)), ids=lambda f: f.__name__
)
def test_a_stronger_source_wins_over_the_next(stronger: Any, weaker: Any) -> None:
    assert found(stronger, weaker) == found(stronger)
    assert found(stronger) != found(weaker)


def test_every_value_names_its_source() -> None:
    assert [found(giver) for giver in PRECEDENCE] == [
        ("10", "--set"),
        (20, "call"),
        ("30", "environment variable DBND__TRAIN__N"),
        (40, "dbnd.toml"),
        (1, "default"),
    ]


def test_the_root_is_addressed_by_bare_names_and_a_task_by_its_own(project: Project) -> None:
    assert project.value(root, {"n": "5"}) == 5
    assert project.value(root, {"root.n": "6"}) == 6
    assert project.value(root, {"train.n": "7"}) == 7  # over the pipeline's argument


def test_an_environment_table_wins_over_the_base(project: Project) -> None:
    project.configure(
        """
        [parameters]
        n = 2
        [parameters.train]
        alpha = 0.1
        [environments.prod.parameters]
        n = 3
        """
    )

    assert project.value(root) == 2
    assert project.value(root, environment="prod") == 3
    manifest = project.run(root, environment="prod").outcomes["train"].manifests[0]
    assert manifest.parameters["n"].source == f"{project.folder}/dbnd.toml [environments.prod]"
    assert manifest.parameters["alpha"].value == 0.1
    assert manifest.parameters["alpha"].source == f"{project.folder}/dbnd.toml"


def test_a_file_may_name_its_own_environment(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure(
        'environment = "a"\n[environments.a.parameters]\nn = 4\n[environments.b.parameters]\nn = 5'
    )

    assert project.value(root) == 4
    monkeypatch.setenv("DBND_ENVIRONMENT", "b")
    assert project.value(root) == 5
    assert project.value(root, environment="a") == 4


def test_a_table_can_be_the_value_of_a_parameter(project: Project) -> None:
    project.configure("[parameters.options]\na = 7")

    assert project.value(root_of_options) == 7


def test_settings_may_give_what_no_call_gives(project: Project) -> None:
    @pipeline
    def p():
        return needs()

    with pytest.raises(ParameterError) as error:
        project.value(p)
    assert str(error.value) == (
        "parameter 'n' of task 'needs' has no value: expected int. Pass it in the call, set it by "
        "--set needs.n=..., DBND__NEEDS__N or 'needs.n' in [parameters] of dbnd.toml, or give it "
        "a default."
    )
    project.configure("[parameters.needs]\nn = 9")
    assert project.value(p) == 9


@pytest.mark.parametrize(
    ("given", "environ", "toml", "message"),
    [
        (
            {"m": "1"},
            {},
            "",
            "unknown parameter 'm' (from --set); there are: n, reuse, root.n, root.reuse, "
            "train.alpha, train.engine, train.n, train.reuse.",
        ),
        (
            {"alpha": "1"},
            {},
            "",
            "unknown parameter 'alpha' (from --set); did you mean 'train.alpha'?",
        ),
        (
            {"train.alhpa": "1"},
            {},
            "",
            "unknown parameter 'train.alhpa' (from --set); did you mean 'train.alpha'?",
        ),
        (
            {},
            {"DBND__TRAIN__ALHPA": "1"},
            "",
            "unknown parameter in environment variable DBND__TRAIN__ALHPA; did you mean "
            "'DBND__TRAIN__ALPHA'?",
        ),
        (
            {},
            {},
            "[parameters]\nm = 1",
            "unknown parameter 'm' (from {folder}/dbnd.toml); there are: n, reuse, root.n, "
            "root.reuse, train.alpha, train.engine, train.n, train.reuse.",
        ),
        (
            {},
            {},
            "[parameters.train]\nalhpa = 1",
            "unknown parameter 'train.alhpa' (from {folder}/dbnd.toml); did you mean "
            "'train.alpha'?",
        ),
    ],
)
def test_an_unknown_key_fails_with_a_suggestion(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    environ: dict[str, str],
    toml: str,
    message: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    project.configure(toml)

    with pytest.raises(ParameterError) as error:
        project.graph(root, given)

    assert str(error.value) == message.format(folder=project.folder)


def test_keys_of_other_pipelines_pass_and_a_near_miss_is_logged(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project.configure(
        "[parameters.other]\nx = 1\n[parameters.trian]\nn = 1\n"
        "[tasks.other]\nretries = 1\n[tasks.trian]\nretries = 1"
    )
    monkeypatch.setenv("DBND__TRIAN__N", "1")

    with caplog.at_level(logging.WARNING):
        project.graph(root)

    assert caplog.messages == [
        f"[parameters.trian] (from {project.folder}/dbnd.toml) is of no task in this run; did you "
        "mean 'train'?",
        f"[tasks.trian] (from {project.folder}/dbnd.toml) is of no task in this run; did you mean "
        "'train'?",
        "environment variable DBND__TRIAN__N is of no task in this run; did you mean 'TRAIN'?",
    ]


def test_a_bad_value_names_task_parameter_type_value_and_source(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "Input should be a valid integer, unable to parse string as an integer."

    def message(**given: str) -> str:
        with pytest.raises(ParameterError) as error:
            project.value(root, given)
        return str(error.value)

    assert message(n="hgh") == (
        f"parameter 'n' of pipeline 'root': expected int, got 'hgh' (from --set). {reason}"
    )
    monkeypatch.setenv("DBND__ROOT__N", "env")
    assert message() == (
        "parameter 'n' of pipeline 'root': expected int, got 'env' "
        f"(from environment variable DBND__ROOT__N). {reason}"
    )


def test_a_bad_hidden_value_is_not_shown(project: Project) -> None:
    with pytest.raises(ParameterError) as error:
        project.value(secret, {"token": "hush-hush"})

    assert str(error.value) == (
        "parameter 'token' of task 'secret': expected str, got *** (from --set)."
    )
    assert error.value.__cause__ is None
    manifest = next(iter(project.store.list("_runs")))
    assert b"hush-hush" not in project.store.get_bytes(manifest.key)


def test_relative_paths_start_from_where_they_are_written(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "x.txt").write_text("cwd")
    (tmp_path / "x.txt").write_text("toml")
    monkeypatch.chdir(work)

    assert project.value(read, {"path": "x.txt"}) == "cwd"
    monkeypatch.setenv("DBND__READ__PATH", "x.txt")
    assert project.value(read) == "cwd"
    monkeypatch.delenv("DBND__READ__PATH")
    project.configure('[parameters]\npath = "x.txt"')
    assert project.value(read) == "toml"
    project.configure("")
    with pytest.raises(FileNotFoundError, match=str(Path(__file__).parent / "from_default.txt")):
        project.value(read)


def test_the_logical_date_of_the_run_fills_in(project: Project) -> None:
    result = project.run(of_day, logical_date="2024-05-06")

    assert result.value() == "2024-05-06"
    assert result.outcomes["of_day"].manifests[0].parameters["day"].source == (
        "logical date of the run"
    )
    assert project.value(of_day, {"day": "2020-01-01"}) == "2020-01-01"
    assert project.value(of_day) == dt.datetime.now(dt.timezone.utc).date().isoformat()


def test_none_is_a_word_where_a_source_has_no_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    @pipeline
    def p(note: str | None = "n"):
        return of_note(note), of_note(of_text("none"), task_id="from_a_task")

    word = {"of_note.note": "none", "of_note.data": "None", "of_note.any_": "none"}
    assert project.value(p, word)[0] == "(None, None, 'none')"
    assert project.value(p, {"note": "null"})[0] == "(None, None, 1)"
    project.configure('[parameters]\nnote = "none"')
    assert project.value(p) == ("(None, None, 1)", "('none', None, 1)")
    monkeypatch.setenv("DBND__P__NOTE", "none")
    assert project.value(p)[0] == "(None, None, 1)"
    monkeypatch.setenv("DBND__P__NOTE", "no")
    assert project.value(p)[0] == "('no', None, 1)"


def test_none_in_code_is_a_text(project: Project) -> None:
    @pipeline
    def p(note: str | None = "none"):
        return of_note(note), of_note("null")

    assert project.value(p) == ("('none', None, 1)", "('null', None, 1)")


def test_the_logical_date_fills_in_at_any_depth_as_the_pipelines_type(project: Project) -> None:
    @pipeline
    def p(day: dt.date = LOGICAL_DATE, when: dt.datetime = LOGICAL_DATE, untyped=LOGICAL_DATE):  # type: ignore[assignment]
        return (
            shown(day),
            shown({"days": [day, when]}),
            shown([untyped]),
            of_days([day, when]),
            of_time(day),
            of_day(when),
            of_text(day),
        )

    date, time = dt.date(2024, 5, 6), dt.datetime(2024, 5, 6, 7, tzinfo=dt.timezone.utc)
    expected = (
        repr(date),
        repr({"days": [date, time]}),
        repr([time]),
        repr([date, date]),
        repr(time),
        "2024-05-06",
        "2024-05-06T07:00:00+00:00",
    )
    assert project.value(p, logical_date="2024-05-06T07:00") == expected
    assert project.value(p, logical_date="2024-05-06T09:00+02:00") == expected


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("stroe = 's'", "{file}: unknown key 'stroe'; did you mean 'store'?"),
        ("store = 3", "{file}: 'store' must be text, got 3."),
        ("parameters = 3", "{file}: 'parameters' must be a table ([parameters]), got 3."),
        ("environments = 3", "{file}: 'environments' must be a table ([environments]), got 3."),
        (
            "[environments.prod]\nenvironment = 'x'",
            "{file} [environments.prod]: unknown key 'environment'; there are: "
            "bundle, engine, engines, gc, parameters, storage_options, store, tasks.",
        ),
        ("[environments]\nprod = 1", "{file} [environments.prod]: expected a table, got 1."),
        ("[tasks]\ntrain = 1", "[tasks.train] must be a table, got 1."),
        ("a =", "{file} is not valid TOML: Invalid value (at end of document)."),
        ("environment = 'x'", "Unknown environment 'x' ({file}); there are none."),
    ],
)
def test_a_wrong_settings_file_says_what_is_wrong(
    project: Project, toml: str, message: str
) -> None:
    project.configure(toml)

    with pytest.raises(ConfigurationError) as error:
        load_settings(project.folder)

    assert str(error.value) == message.format(file=project.folder / "dbnd.toml")


def test_settings_are_found_above_the_code_and_name_the_store(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder / "a" / "b").mkdir(parents=True)
    project.configure('store = "kept"')

    settings = load_settings(project.folder / "a" / "b")

    assert (settings.store, settings.store_source) == (
        str(project.folder / "kept"),
        str(project.folder / "dbnd.toml"),
    )
    monkeypatch.setenv("DBND_STORE", "s3://bucket/x")
    settings = load_settings(project.folder)
    assert settings.store == "s3://bucket/x"
    assert settings.store_source == "environment variable DBND_STORE"


def test_a_named_settings_file_that_is_not_there_is_an_error(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBND_CONFIG", str(project.folder / "no.toml"))

    with pytest.raises(ConfigurationError) as error:
        load_settings(project.folder)

    assert str(error.value) == (
        f"Cannot read settings file {project.folder}/no.toml: No such file or directory. It is "
        "named by DBND_CONFIG or is the nearest dbnd.toml."
    )
