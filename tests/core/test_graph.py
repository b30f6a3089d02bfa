"""What a call means while a graph is built, inside a running task, and in plain Python."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import pytest
from local_project import Project
from pandas import DataFrame

from airflow_provider_dbnd import parameter, pipeline, task
from airflow_provider_dbnd.exceptions import ConfigurationError, GraphError, SignatureError


class Parts(NamedTuple):
    small: int
    big: int


@dataclass
class Stats:
    mean: float
    count: int


@task
def one() -> int:
    return 1


@task
def double(n: int) -> int:
    return 2 * n


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
def total(values: list[int]) -> int:
    return sum(values)


@task
def weigh(weights: dict[str, int]) -> int:
    return weights["a"] + 10 * weights["b"]


@task
def pair(n: int) -> tuple[int, int]:
    return n, n + 1


@task
def parts(n: int) -> Parts:
    return Parts(n, 100 * n)


@task
def stats(n: int) -> Stats:
    return Stats(mean=n / 2, count=n)


@task(result="low, high")
def bounds(n: int):
    return {"low": -n, "high": n}


@task
def mapping(n: int) -> dict[str, list[int]]:
    return {"a": [n, n + 1]}


@task
def numbers(n: int) -> list[int]:
    return list(range(n))


@task
def rows() -> list[dict[str, int]]:
    return [{"a": 1, "b": 2}, {"a": 3}]


@task
def gather(*values: int, **named: int) -> int:
    return sum(values) + 100 * sum(named.values())


@task
def context_named(params: int, ds: int, run_id: int, task: int, ti: int) -> list[int]:
    return [params, ds, run_id, task, ti]


@task
def outer_task(n: int) -> int:
    return add(double(n), b=one())


@task
def nothing() -> None: ...


@task
def frame() -> DataFrame:
    return DataFrame({"x": [1, 2]})


@pipeline
def inner(n: int = 5, k: int = 1):
    return add(double(n), k)


def test_outside_a_run_a_call_is_the_plain_function() -> None:
    assert add("a", "b") == "ab"  # type: ignore[arg-type, comparison-overlap]
    assert inner(3) == 7
    assert pair(1) == (1, 2)
    assert double.expand(n=[1, 2]) == [2, 4]
    assert add.partial(b=1).expand_kwargs([{"a": 1}, {"a": 2}]) == [2, 3]
    assert double(2, task_id="renamed") == 4  # type: ignore[call-arg]


def test_in_a_pipeline_a_call_makes_a_node_and_runs_nothing(project: Project) -> None:
    @task
    def broken() -> int:
        raise AssertionError("ran while the graph was built")

    @pipeline
    def p():
        return double(broken())

    graph = project.graph(p)

    assert list(graph.nodes) == ["broken", "double"]
    assert graph.nodes["double"].upstream == {"broken"}


def test_inside_a_running_task_a_call_runs_now_and_is_recorded(project: Project) -> None:
    @pipeline
    def p():
        return outer_task(3)

    result = project.run(p)

    assert result.value() == 7
    assert list(result.outcomes) == ["outer_task"]
    manifest = result.outcomes["outer_task"].manifests[0]
    assert [(c.task, c.status) for c in manifest.calls] == [
        ("double", "success"),
        ("one", "success"),
        ("add", "success"),
    ]


def test_results_unpack_index_and_have_attributes(project: Project) -> None:
    @pipeline
    def p():
        a, b = pair(1)
        record = parts(2)
        low, high = bounds(7)
        return [
            add(a, b),
            add(record.small, record["big"]),
            add(record[0], record[-1]),
            total([stats(4).count, low, high]),
            total(mapping(5)["a"]),
            double(mapping(5)["a"][1]),
        ]

    assert project.value(p) == [3, 202, 202, 4, 11, 12]


def test_whole_results_come_back_as_they_were_returned(project: Project) -> None:
    @pipeline
    def p():
        return {"pair": pair(1), "parts": parts(2), "stats": stats(3), "none": nothing()}

    assert project.value(p) == {
        "pair": (1, 2),
        "parts": Parts(2, 200),
        "stats": Stats(1.5, 3),
        "none": None,
    }


def test_a_record_goes_into_a_task_as_itself(project: Project) -> None:
    @pipeline
    def p():
        return take(stats(4), parts(1))

    assert project.value(p) == "Stats(mean=2.0, count=4) Parts(small=1, big=100)"


@task
def take(s: Stats, p: Parts) -> str:
    return f"{s} {p}"


def test_handles_go_inside_lists_and_dicts(project: Project) -> None:
    @pipeline
    def p():
        return total([one(), double(4), 3]), weigh({"a": one(), "b": double(2)})

    assert project.value(p) == (12, 41)


def test_variadic_arguments_and_context_names_work(project: Project) -> None:
    @pipeline
    def p(n: int = 3):
        return gather(one(), n, x=double(2), y=1), context_named(1, 2, 3, task=4, ti=n)

    assert project.value(p) == (504, [1, 2, 3, 4, 3])


def test_order_without_data_is_set_by_shifts(project: Project) -> None:
    @pipeline
    def p():
        first, second, third = one(task_id="a"), one(task_id="b"), one(task_id="c")  # type: ignore[call-arg]
        first >> [second, third]
        [second, third] >> one(task_id="d")  # type: ignore[call-arg, operator]
        one(task_id="z") << third  # type: ignore[call-arg, operator]

    graph = project.graph(p)

    assert {n: sorted(node.upstream) for n, node in graph.nodes.items()} == {
        "a": [],
        "b": ["a"],
        "c": ["a"],
        "d": ["b", "c"],
        "z": ["c"],
    }


def test_repeated_calls_get_stable_ids_and_pipelines_become_groups(project: Project) -> None:
    @pipeline
    def p():
        one()
        one()
        inner()
        inner(task_id="eu")  # type: ignore[call-arg]
        inner()
        one.override(task_id="uno")()

    ids = ["one", "one__1", "inner.double", "inner.add", "eu.double", "eu.add"]
    ids += ["inner__1.double", "inner__1.add", "uno"]
    assert list(project.graph(p).nodes) == ids
    assert list(project.graph(p).nodes) == ids


def test_a_groups_parameters_are_addressed_by_its_id(project: Project) -> None:
    @pipeline
    def p():
        return inner(), inner(task_id="eu")  # type: ignore[call-arg]

    assert project.value(p, {"eu.n": "10", "eu.add.b": "0"}) == (11, 20)


def test_expand_runs_once_for_each_element(project: Project) -> None:
    @pipeline
    def p(k: int = 3):
        mapped = double.expand(n=numbers(k))
        product = add.expand(a=[1, 2], b=[10, 20])
        rowwise = add.partial().expand_kwargs(rows())
        return mapped, total(mapped), product, rowwise, double.expand(n=[])

    result = project.run(p)

    assert result.value() == ([0, 2, 4], 6, [11, 21, 12, 22], [3, 3], [])
    indexes = [m.identity.map_index for m in result.outcomes["double"].manifests]
    assert indexes == [0, 1, 2]


def test_override_sets_options_and_name(project: Project) -> None:
    @pipeline
    def p():
        one.override(task_id="eins", retries=3)()

    node = project.graph(p).nodes["eins"]

    assert node.call.definition.options == {"retries": 3}
    assert one.definition.options == {}


def test_options_of_dbnd_toml_are_laid_over_those_in_code(project: Project) -> None:
    project.configure("[tasks.one]\nretries = 5")

    @pipeline
    def p():
        one.override(retries=1, pool="p")()

    node = project.graph(p).nodes["one"]
    assert node.call.definition.options == {"retries": 5, "pool": "p"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("execution_timeout = 3600", dt.timedelta(hours=1)),
        ('execution_timeout = "PT1H"', dt.timedelta(hours=1)),
        ('execution_timeout = "01:00:00"', dt.timedelta(hours=1)),
        ('execution_timeout = "5m"', dt.timedelta(minutes=5)),
        ('retry_delay = "1s"', dt.timedelta(seconds=1)),
        ("retry_delay = 0.5", dt.timedelta(seconds=0.5)),
        ('retries = "2"', 2),
    ],
)
def test_options_of_dbnd_toml_become_what_the_option_needs(
    project: Project, written: str, expected: Any
) -> None:
    project.configure(f"[tasks.one]\n{written}")

    options = project.graph(one).nodes["one"].call.definition.options

    assert options == {written.partition(" ")[0]: expected}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("retries = -1", "'retries' of task 'one': expected a whole number, 0 or more, got -1"),
        ('retries = "x"', "'retries' of task 'one': expected a whole number, 0 or more, got 'x'"),
        (
            'retry_delay = "soon"',
            "'retry_delay' of task 'one': expected a duration, such as '90s', '1h30m' or a number "
            "of seconds, got 'soon'",
        ),
        (
            "retry_delay = -3",
            "'retry_delay' of task 'one': expected a duration, such as '90s', '1h30m' or a number "
            "of seconds, got -3",
        ),
    ],
)
def test_an_option_of_the_wrong_type_is_named_with_where_it_is_written(
    project: Project, written: str, message: str
) -> None:
    project.configure(f"[tasks.one]\n{written}")

    with pytest.raises(ConfigurationError) as error:
        project.graph(one)

    file = project.folder / "dbnd.toml"
    assert str(error.value) == f"option {message} (from [tasks.one] of {file})."
    with pytest.raises(ConfigurationError, match=r"got -2 \(from the code\)"):
        project.graph(double.override(retries=-2))


def wrong(body: Any) -> Any:
    """A pipeline with *body* as its body."""

    @pipeline
    def p():
        body()

    return p


def into_one() -> None:
    (_a,) = pair(1)  # type: ignore[misc]


def into_three() -> None:
    _a, _b, _c = pair(1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            lambda: 1 if one() else 2,
            "The result of task 'one' is not known while the graph is built, so it cannot decide "
            "what the graph is. Branch inside a task.",
            id="if",
        ),
        pytest.param(
            lambda: list(one()),  # type: ignore[call-overload]
            "The result of task 'one' is not known yet: annotate what one() returns as tuple[...] "
            "to unpack it, or fan out over it with .expand(...).",
            id="unpack",
        ),
        pytest.param(
            lambda: list(mapping(1)["a"]),
            "The result of task 'mapping' is not known yet: fan out over it with .expand(...).",
            id="iterate a part",
        ),
        pytest.param(
            lambda: pair(1)[2],  # type: ignore[misc]
            "Task 'pair' has no output 2; it has result_1, result_2.",
            id="index",
        ),
        pytest.param(
            lambda: numbers(1)[:1],
            "The result of task 'numbers' can be indexed by a name or a number, got "
            "slice(None, 1, None). Take the part inside a task.",
            id="slice",
        ),
        pytest.param(
            lambda: nothing()[0],  # type: ignore[func-returns-value, index]
            "Task 'nothing' returns nothing to take 0 of.",
            id="nothing",
        ),
        pytest.param(
            lambda: f"{one()}",
            "The result of task 'one' is not known while the graph is built, so it cannot be part "
            "of a text. Make the text inside a task.",
            id="f-string",
        ),
        *(
            pytest.param(
                use,
                "The result of task 'one' is not known while the graph is built, so it cannot be "
                "part of a text. Make the text inside a task.",
                id=name,
            )
            for name, use in {
                "str": lambda: str(one()),
                "%": lambda: "%s" % one(),  # noqa: UP031
                "format": lambda: "{}".format(one()),  # noqa: UP032
                "f-string of a part": lambda: f"{one()[0]}",  # type: ignore[index]
            }.items()
        ),
        *(
            pytest.param(
                use,
                "The result of task 'one' is not known while the graph is built, so it cannot be "
                "compared. Compare inside a task.",
                id=name,
            )
            for name, use in {
                "==": lambda: one() == 1,
                "== of two": lambda: one() == one(),
                "!=": lambda: one() != 1,
                "<": lambda: one() < 1,
                ">=": lambda: one() >= 1,
                "in a list": lambda: one() in [1, 2],
                "tuple": lambda: (one(), 1) == (1, 1),
            }.items()
        ),
        pytest.param(
            lambda: 1 in numbers(1),
            "The result of task 'numbers' is not known while the graph is built, so nothing can be "
            "looked for in it. Look inside a task.",
            id="in",
        ),
        *(
            pytest.param(
                use,
                "The result of task 'one' is not known while the graph is built, so it cannot be "
                "calculated with. Calculate inside a task.",
                id=name,
            )
            for name, use in {
                "+": lambda: one() + 1,
                "reflected +": lambda: 1 + one(),
                "-": lambda: -one(),
                "divmod": lambda: divmod(7, one()),
                "round": lambda: round(one()),
                "int": lambda: int(one()),
                "range": lambda: range(one()),
            }.items()
        ),
        pytest.param(
            lambda: len(numbers(1)),
            "The result of task 'numbers' is not known while the graph is built, so it has no "
            "length yet. Fan out over it with .expand(...).",
            id="len",
        ),
        *(
            pytest.param(
                unpack,
                "Task 'pair' has 2 outputs, result_1, result_2: they cannot be unpacked into "
                f"{number}.",
                id=f"unpack into {number}",
            )
            for number, unpack in {1: into_one, 3: into_three}.items()
        ),
        pytest.param(
            lambda: double.expand(n=mapping(1)["a"]),
            "double.expand() cannot fan out over a part of the result of task 'mapping'. Return "
            "the list from a task of its own.",
            id="expand a part",
        ),
        pytest.param(
            lambda: double.expand(n=pair(1)),
            "double.expand() needs one list for 'n', but task 'pair' has several outputs. Pick "
            "one: result_1, result_2.",
            id="expand several",
        ),
        pytest.param(
            lambda: one() >> 3,  # type: ignore[operator]
            "<result of one> is ordered against 3, which is no task of this package. A pipeline "
            "with Airflow operators in it runs in Airflow: use `airflow dags test`.",
            id="shift",
        ),
        pytest.param(
            lambda: None,
            "Pipeline 'p' calls no task: decorate the functions it calls with @task.",
            id="no task",
        ),
        pytest.param(
            lambda: one(task_id="p"),  # type: ignore[call-arg]
            "Pipeline and task are both named 'p'. Call the task with task_id=... to name it "
            "otherwise.",
            id="one name",
        ),
    ],
)
def test_a_graph_that_cannot_work_is_refused(project: Project, body: Any, message: str) -> None:
    with pytest.raises(GraphError) as error:
        project.graph(wrong(body))

    assert str(error.value) == message


@pytest.mark.parametrize("rows", [False, True])
def test_going_over_a_hidden_parameter_in_the_open_is_refused(project: Project, rows: bool) -> None:
    @pipeline
    def p(
        numbers: Annotated[list[int], parameter(hidden=True)] = [1, 2],  # noqa: B006
        calls: Annotated[list[dict[str, int]], parameter(hidden=True)] = [{"n": 1}],  # noqa: B006
    ) -> Any:
        return double.expand_kwargs(calls) if rows else double.expand(n=numbers)

    with pytest.raises(GraphError) as error:
        project.graph(p)

    over = "calls" if rows else "numbers"
    assert str(error.value) == (
        f"task 'double' goes over {over!r} of 'p', which is hidden, with parameter 'n', which is not. "
        "Declare 'n' hidden as well: parameter(hidden=True)."
    )


@pipeline
def endless(n: int = 1):
    double(n)
    return endless(n)


@pipeline
def there(n: int = 1):
    return back_again(n)


@pipeline
def back_again(n: int = 1):
    double(n)
    there(n + 1)


@pipeline
def countdown(n: int = 3):
    double(n)
    if n > 0:
        countdown(n - 1)


@pytest.mark.parametrize(
    ("circle", "names"),
    [(endless, "endless -> endless"), (there, "there -> back_again -> there")],
)
def test_pipelines_in_a_circle_are_named(project: Project, circle: Any, names: str) -> None:
    with pytest.raises(GraphError) as error:
        project.graph(circle)

    assert str(error.value) == (
        f"Pipelines call each other in a circle without an end: {names}. Stop it by a value that is "
        "known while the graph is built, or loop inside a task."
    )


def test_a_pipeline_may_call_itself_to_an_end(project: Project) -> None:
    assert list(project.graph(countdown).nodes)[-1] == "countdown.countdown.countdown.double"


def test_a_handle_can_be_a_key_and_compared_by_identity(project: Project) -> None:
    seen: list[Any] = []

    @pipeline
    def p():
        first, second = one(), one()
        names = {first: "first", second: "second"}
        seen.append((names[first], first in {first}, first in [first], first is second))
        _, *rest = pair(1)
        total(rest)

    assert list(project.graph(p).nodes) == ["one", "one__1", "pair", "total"]
    assert seen == [("first", True, True, False)]


def test_an_attribute_of_an_unknown_result_is_refused(project: Project) -> None:
    with pytest.raises(AttributeError) as error:
        project.graph(wrong(lambda: frame().columns))

    assert str(error.value) == (
        "The result of task 'frame' has no attribute 'columns': its value is not known while the "
        "graph is built. Use it inside a task."
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda: add(1, c=2), "add(): got an unexpected keyword argument 'c'."),  # type: ignore[call-arg]
        (lambda: add.partial(b=1).partial(b=2), "add.partial(): argument 'b' is already set."),
        (
            lambda: add.partial(b=1).expand(b=[1]),
            "add.expand(): argument 'b' is already set by partial().",
        ),
        (add.expand, "add.expand() needs a list to go over, e.g. expand(x=[1, 2])."),
        (
            lambda: add.expand(aa=[1]),
            "add.expand() got an unknown argument 'aa'; did you mean 'a'?",
        ),
        (
            lambda: add.expand_kwargs([{"xx": 1}]),
            "add.expand_kwargs() got an unknown argument 'xx'; there are: a, b.",
        ),
    ],
)
def test_wrong_arguments_are_refused_where_the_call_is(
    project: Project, body: Any, message: str
) -> None:
    with pytest.raises(SignatureError) as error:
        project.graph(wrong(body))

    assert str(error.value) == message


def test_a_part_that_is_not_there_is_an_error_of_the_consumer(project: Project) -> None:
    @pipeline
    def p():
        return total(mapping(1)["b"])

    outcome = project.run(p).outcomes["total"]

    assert str(outcome.error) == (
        "the upstream result has no part 'b': expected a dict or list that has it, got a dict of "
        "'a'."
    )
