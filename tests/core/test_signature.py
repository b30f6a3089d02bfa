"""What a function's signature says, and which functions are refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional, TypedDict

import pytest
from pandas import DataFrame

from airflow_provider_dbnd import output, parameter, sensor, task
from airflow_provider_dbnd.exceptions import SignatureError

if TYPE_CHECKING:
    from decimal import Decimal


class Halves(NamedTuple):
    left: DataFrame
    right: DataFrame


class Row(TypedDict):
    n: int


@dataclass
class Score:
    value: float
    label: str


def outputs(decorated: Any) -> dict[str, Any]:
    return {slot.name: slot.annotation for slot in decorated.definition.signature.outputs}


def inputs(decorated: Any) -> dict[str, Any]:
    return {name: spec.annotation for name, spec in decorated.definition.signature.inputs.items()}


def test_outputs_are_read_from_the_return_annotation() -> None:
    @task
    def single() -> int:
        return 1

    @task
    def pair() -> tuple[int, str]:
        return 1, ""

    @task
    def halves() -> Halves: ...

    @task
    def score() -> Score: ...

    @task
    def nothing() -> None: ...

    @task
    def unknown(): ...

    assert outputs(single) == {"result": int}
    assert outputs(pair) == {"result_1": int, "result_2": str}
    assert outputs(halves) == {"left": DataFrame, "right": DataFrame}
    assert outputs(score) == {"value": float, "label": str}
    assert outputs(nothing) == {}
    assert outputs(unknown) == {"result": Any}


def test_outputs_are_named_by_result() -> None:
    @task(result="train, test")
    def split() -> tuple[int, str]:
        return 1, ""

    @task(result=("a", output(name="b", format="csv")))
    def two() -> tuple[int, DataFrame]: ...

    @task(result=output.csv[DataFrame])
    def table(): ...

    assert outputs(split) == {"train": int, "test": str}
    assert outputs(two) == {"a": int, "b": DataFrame}
    assert two.definition.signature.outputs[1].declaration.format == "csv"
    assert outputs(table) == {"result": DataFrame}


def test_an_output_is_declared_in_the_annotation_or_by_its_name() -> None:
    @task(left=output.csv)
    def halves() -> Halves: ...

    @task
    def frame() -> Annotated[DataFrame, output.parquet]: ...

    assert halves.definition.signature.outputs[0].declaration.format == "csv"
    assert frame.definition.signature.outputs[0].declaration.format == "parquet"


def test_a_parameter_is_declared_in_its_annotation_its_default_or_the_decorator() -> None:
    @task(c=parameter(hidden=True)[str])
    def declared(
        a: Annotated[int, parameter(ge=0)],
        b=parameter(default=2)[int],  # noqa: B008 - DBND's way
        c=None,
    ): ...

    specs = declared.definition.signature.inputs
    assert [s.annotation for s in specs.values()] == [int, int, Optional[str]]
    assert specs["a"].declaration.ge == 0
    assert specs["b"].default == 2
    assert specs["c"].declaration.hidden


def test_a_declaration_inside_an_optional_annotation_can_hold_unhashable_values() -> None:
    @task
    def f(x: Annotated[int, parameter(choices=[1, 2], load_options={"a": 1})] | None = None): ...

    assert f(3) is None


def test_a_default_of_none_makes_the_type_optional() -> None:
    @task
    def f(n: int = None, m=None, k=1): ...  # noqa: RUF013 - as people write it

    assert inputs(f) == {"n": Optional[int], "m": Any, "k": int}


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        pytest.param(
            lambda: task(lambda x: x),
            "A lambda has no name to make a task id of. Use def.",
            id="lambda",
        ),
        pytest.param(
            lambda: task(functools.partial(int, "1")),
            "functools.partial(<class 'int'>, '1') is not a function written in Python. "
            "Decorate one that calls it.",
            id="partial",
        ),
        pytest.param(
            lambda: task(Score),
            f"{Score!r} is not a function written in Python. Decorate one that calls it.",
            id="class",
        ),
        pytest.param(
            lambda: task(len),
            "<built-in function len> is not a function written in Python. "
            "Decorate one that calls it.",
            id="builtin",
        ),
    ],
)
def test_what_is_no_function_is_refused(decorate: Any, message: str) -> None:
    with pytest.raises(SignatureError) as error:
        decorate()

    assert str(error.value) == message


def test_methods_are_refused_with_the_alternative() -> None:
    message = (
        "is a method. Decorate a function at module level and pass the object's data as arguments."
    )
    with pytest.raises(SignatureError, match="run.. " + message):

        class Model:
            @task
            def run(self, x: int) -> int: ...

    with pytest.raises(SignatureError, match="make.. " + message):

        class Other:
            @task
            @classmethod
            def make(cls, x: int) -> int: ...


def test_async_functions_are_refused() -> None:
    with pytest.raises(SignatureError) as error:

        @task
        async def f() -> int: ...

    assert str(error.value) == "f() is async. Write a plain function, asyncio.run(...) in it."
    with pytest.raises(SignatureError, match=r"g\(\) is async"):

        @sensor
        async def g() -> AsyncIterator[int]:
            yield 1


def test_an_annotation_known_to_the_type_checker_only_is_refused() -> None:
    with pytest.raises(SignatureError) as error:

        @task
        def f(x: Decimal) -> int: ...

    assert str(error.value) == (
        "f(): annotation 'Decimal' cannot be resolved. Import or define it at module level, not "
        "only under TYPE_CHECKING: annotations decide how values are loaded and stored."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"y": parameter(default=1)},
            "f(): 'y' is declared but is neither a parameter (x) nor an output (result).",
        ),
        (
            {"x": output.csv},
            "f(): parameter 'x' is declared as an output. Return the value instead, and place it "
            "with @task(result=output(path=...)).",
        ),
        (
            {"result": "a,b,c"},
            "f(): result=... names 3 outputs, the return annotation 2. Make them agree.",
        ),
        ({"result": "a,a"}, "f(): two outputs have one name: a, a."),
    ],
)
def test_declarations_that_fit_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SignatureError) as error:

        @task(**options)
        def f(x: int) -> tuple[int, int]: ...

    assert str(error.value) == message.replace("(result)", "(result_1, result_2)")


def test_unknown_options_and_formats_of_declarations_are_named() -> None:
    with pytest.raises(SignatureError) as error:
        parameter(hiden=True)
    assert str(error.value) == "parameter() has no option 'hiden'; did you mean 'hidden'?"
    with pytest.raises(AttributeError, match="output has no format 'parket'; did you mean 'parque"):
        output.parket


@pytest.mark.parametrize(
    ("function_result", "message"),
    [
        ((1, 2, 3), "f() must return 2 values (result_1, result_2), got 3. Return as many as its "),
        (1, "f() must return 2 values (result_1, result_2), got int. Return as many as its "),
        ({"a": 1}, "f() must return a dict with the keys result_1, result_2, got a."),
    ],
)
def test_a_result_that_is_not_what_is_annotated_is_refused(
    function_result: Any, message: str
) -> None:
    @task
    def f() -> tuple[int, int]: ...

    with pytest.raises(SignatureError) as error:
        f.definition.signature.split(function_result)
    assert str(error.value).startswith(message)


def test_a_record_splits_and_joins() -> None:
    @task
    def f() -> Score: ...

    signature = f.definition.signature
    parts = signature.split(Score(value=1.5, label="a"))

    assert parts == {"value": 1.5, "label": "a"}
    assert signature.join(signature.as_fields(parts)) == Score(value=1.5, label="a")
    with pytest.raises(SignatureError, match="must return 2 values"):
        signature.split(None)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic can read it")
def test_a_typeddict_that_pydantic_cannot_read_is_refused() -> None:
    def f(rows: list[Row] | None) -> None: ...

    with pytest.raises(SignatureError) as error:
        task(f)

    assert str(error.value) == (
        "f(): parameter 'rows' is a TypedDict of typing, which pydantic can read only from Python 3.12 on. "
        "Import TypedDict from typing_extensions."
    )
