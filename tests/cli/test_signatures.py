"""Parameters of classes and functions, and whether plain values fit their type hints; suggestions of names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypeVar, Union

import pytest

from gt.cli.signatures import describe, fits, parameters
from gt.errors import nearest
from tests.cli.configurations import Base, Greedy, Thing


class Derived(Base): ...


AnyType = TypeVar("AnyType")
OBJECT = {"_target_": "somewhere.Thing"}


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, -3], [1.5, "1", True, None, [1], {}, [OBJECT]]),
        (float, [0, 1.5], ["1", False, None, [1.0]]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "a"], [1, None, ["a"], True]),
        (Path, ["a/b"], [1, None, True]),
        (None, [None], [0, "", False]),
        (Any, [None, 1, "a", [1], {"a": 1}], []),
        (AnyType, [None, 1, "a"], []),
        (object, [1, "a", True, {"a": 1}, [1]], []),
        (int | None, [1, None], [1.5, "a"]),
        (Optional[str], ["a", None], [1]),  # noqa: UP045
        (Union[int, str], [1, "a"], [1.5, None]),  # noqa: UP007
        (Literal["a", "b"], ["a", "b"], ["c", None, 1, ["a"]]),
        (Literal["a"] | None, ["a", None], ["b"]),
        (Annotated[int, "of something"], [1], ["a"]),
        (list, [[], [1, "a"]], ["ab", 1, None]),
        (list[int], [[], [1, 2]], [["a"], [1.5], 1, "12"]),
        (Sequence[str], [[], ["a"]], ["a", [1], None]),
        (tuple[float, float], [[1, 2.5]], [[1], [1, 2, 3], ["a", "b"], 1]),
        (tuple[int, ...], [[], [1], [1, 2]], [["a"], 1]),
        (list[int] | int, [[1], 1], ["a", ["a"]]),
        (dict, [{}, {"a": 1}], [[], "a", 1]),
        (dict[str, Any], [{"a": 1}], ["a", None]),
        (Mapping[str, int], [{"a": 1}], ["a"]),
        (Base, [OBJECT], [{"a": 1}, 1, "a", None, [OBJECT]]),
        (Base | None, [OBJECT, None], [1]),
        (Sequence[Base], [[OBJECT, OBJECT]], [[1]]),
        (Callable[..., int], [OBJECT], [1, "a", None, {"a": 1}]),
    ],
    ids=str,
)
def test_values_fit_type_hints(hint, good, bad):
    for value in good:
        assert fits(value, hint), value
    for value in bad:
        assert not fits(value, hint), value


def test_types_are_described_in_plain_words():
    assert describe(int) == "a whole number"
    assert describe(float | None) == "a number or null"
    assert describe(Literal["graph", "sequence"]) == "graph or sequence"
    assert describe(Literal[64, 32] | Literal["64", "bf16"] | None) == "64 or 32 or bf16 or null"
    assert describe(tuple[float, float]) == "a list of 2"
    assert describe(Sequence[int] | bool) == "a list or true or false"
    assert describe(dict[str, Any]) == "a section"
    assert describe(Callable[..., Any]) == "a section with a _target_"
    assert describe(Base) == "Base"


def test_suggestion_is_the_nearest_name_or_all_names():
    assert nearest("dpeth", ["width", "depth"]) == "did you mean 'depth'?"
    # a name with this prefix comes first
    assert nearest("--temp", ["--help", "--temperature"]) == "did you mean '--temperature'?"
    assert nearest("GatedGCN", ["gin", "gated_gcn"]) == "did you mean 'gated_gcn'?"
    assert nearest("RWSE", ["rrwp", "rwse"]) == "did you mean 'rwse'?"
    assert nearest("epochs", ["max_epochs", "max_steps", "min_epochs"]) == "did you mean 'max_epochs' or 'min_epochs'?"
    assert nearest("xyz", ["width", "depth"]) == "there are depth, width"
    assert nearest("xyz", []) == "nothing may be set here"


def test_parameters_are_those_with_names():
    assert parameters(Greedy) == {"first": Any, "named": int}
    assert parameters(Thing)["mode"] == Literal["fast", "slow"]
    assert list(parameters(nearest)) == ["name", "options"]
