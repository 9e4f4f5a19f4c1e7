"""Memory by arithmetic, against what was measured; and the shapes it is of."""

from __future__ import annotations

import pytest
from memory import GIB, Plan, deepest, memory  # type: ignore[import-not-found]
from shapes import SHAPES, Shape, shape_of  # type: ignore[import-not-found]

# benchmarks/README.md, 2 × H100: what PyTorch held at most, GiB.
MEASURED = [
    ("8b", Plan(2, max_live=1_000_000_000), 72.9),
    ("8b-half", Plan(2, recompute="none"), 61.9),
    ("3b", Plan(2, 12288, "none"), 60.3),
    ("3b", Plan(2, 12288, "none", grad_bytes=4), 63.3),
    ("3b", Plan(2, 8192, "none"), 50.6),
]


@pytest.mark.parametrize(("shape", "plan", "gib"), MEASURED)
def test_the_sum_is_what_was_measured_or_a_little_more(shape: str, plan: Plan, gib: float) -> None:
    assert gib * 0.995 <= memory(SHAPES[shape], plan).peak / GIB <= gib * 1.06


@pytest.mark.parametrize(("shape", "parameters"), [("8b", 8_030_261_248), ("70b", 70_553_706_496)])
def test_parameters_are_those_of_the_published_models(shape: str, parameters: int) -> None:
    assert SHAPES[shape].parameters == parameters


def test_the_deepest_shape_fits_and_one_more_layer_does_not() -> None:
    plan = Plan(8)
    found = deepest(SHAPES["70b"], plan, 139.0)
    one_more = Shape(found.layers + 1, *[int(size) for size in str(found).split(",")[1:]])
    assert memory(found, plan).total <= 139.0 * GIB < memory(one_more, plan).total
    assert deepest(SHAPES["8b"], plan, 139.0) == SHAPES["8b"]
    assert str(shape_of(str(found))) == str(found)
    with pytest.raises(ValueError, match="not even one layer"):
        deepest(SHAPES["70b"], plan, 8.0)


def test_what_is_no_shape_is_refused() -> None:
    assert shape_of("tiny") is SHAPES["tiny"]
    with pytest.raises(ValueError, match="six or seven numbers"):
        shape_of("1,2,3")
