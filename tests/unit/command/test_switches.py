"""Boolean options: every one of every command, in every spelling, alone and among others."""

from __future__ import annotations

import functools
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_runs import CONFIGS_DIR
from pydantic import BaseModel

from ray_app.base.settings_parts import CommandSettings
from ray_app.command.load_settings import load_settings, run_command
from ray_app.command.settings import EvaluateSettings, JudgeSettings
from ray_app.errors import InputError
from ray_app.loop.config import IterateSettings

SPELLED = {
    True: ("true", "True", "TRUE", "yes", "Y", "on", "1"),
    False: ("false", "False", "FALSE", "no", "N", "off", "0"),
    None: ("null", "Null", "NULL"),
}
LIST = ["--benchmark", "a", "b=c"]
REQUIRED: dict[type[CommandSettings], list[str]] = {
    IterateSettings: ["--config", str(CONFIGS_DIR / "smollm2-135m-cpu.yaml"), "--first_judge.model", "m"],
    JudgeSettings: [],
    EvaluateSettings: ["--output", "scores"],
}
Given = tuple[list[str], bool | None]  # the words of one option, and what the setting is then


def members(annotation: Any) -> list[Any]:
    """What a union is made of; else the annotation alone."""
    return [inner for one in typing.get_args(annotation) for inner in members(one)] or [annotation]


def booleans(cls: type[BaseModel], prefix: str = "") -> dict[str, bool]:
    """{dotted name: whether it may be null} of every boolean setting of a tree, found from the annotations alone."""
    found: dict[str, bool] = {}
    for name, field in cls.model_fields.items():
        inner = members(field.annotation)
        if bool in inner:
            found[prefix + name] = type(None) in inner
        for model in inner:
            if isinstance(model, type) and issubclass(model, BaseModel):
                found |= booleans(model, f"{prefix}{name}.")
    return found


INHERITS = "then_dpo."  # a section that is null, or says what `judging` and `train` say where it says nothing itself
ALL = [(cls, name, null) for cls in REQUIRED for name, null in booleans(cls).items()]


def forms(name: str, null: bool) -> list[Given]:
    """Every way to give one option."""
    words: list[Given] = [([f"--{name}"], True), ([f"--no-{name}"], False)]
    for value, spelled in SPELLED.items():
        if value is not None or null:
            words += [([f"--{name}", text], value) for text in spelled]
            words += [([f"--{name}={text}"], value) for text in spelled]
    return words


@functools.cache
def usual(cls: type[CommandSettings]) -> dict[str, Any]:
    """{dotted name: value} of every boolean where no option is given."""
    return values(cls, load_settings(cls, REQUIRED[cls]))


def values(cls: type[CommandSettings], loaded: CommandSettings, *arguments: str) -> dict[str, Any]:
    """{dotted name: value} of every boolean; None too in a section that is null. The list option beside them arrives
    whole, where the command has it.
    """
    if set(LIST) <= set(arguments):
        assert getattr(loaded, "benchmark", None) == ["a", "b=c"], arguments
    found: dict[str, Any] = {}
    for name in booleans(cls):
        if name.startswith(INHERITS):
            continue
        value: Any = loaded
        for part in name.split("."):
            value = getattr(value, part, None)
        found[name] = value
    return found


def test_the_trees_hold_the_booleans_that_users_set() -> None:
    found = {(cls.__name__, name) for cls, name, _ in ALL}
    assert {("IterateSettings", "ray.may_grow"), ("IterateSettings", "first_judge.seeded")} <= found
    assert {("JudgeSettings", "serve"), ("EvaluateSettings", "stop_after_verdict")} <= found
    assert (EvaluateSettings, "stop_after_verdict", True) in ALL


OLDER_NAME = "train.bf16"


@pytest.mark.parametrize("cls", REQUIRED)
@given(data=st.data())
@settings(max_examples=40)
def test_booleans_take_every_spelling_and_touch_nothing_else(cls: type[CommandSettings], data: st.DataObject) -> None:
    """Some booleans, each in one of its forms, in any order, with the list option at any place among them."""
    known = {name: null for name, null in booleans(cls).items() if not name.startswith(INHERITS)}
    names = data.draw(st.lists(st.sampled_from(sorted(known)), unique=True, min_size=1))
    chosen = {name: data.draw(st.sampled_from(forms(name, known[name]))) for name in names}
    words = [given for given, _ in chosen.values()]
    if cls is EvaluateSettings:
        words.insert(data.draw(st.integers(0, len(words))), LIST)
    arguments = [word for given in words for word in given]
    expected = usual(cls) | {name: value for name, (_, value) in chosen.items()}
    loaded = load_settings(cls, [*REQUIRED[cls], *arguments])
    if chosen.get(OLDER_NAME, ([], None))[1] is not None:  # it is read as the setting that has taken its place
        meant = expected[OLDER_NAME]
        expected[OLDER_NAME] = None
        assert loaded.train.dtype == ("bfloat16" if meant else "float32")  # type: ignore[attr-defined]
    assert values(cls, loaded, *arguments) == expected


def test_a_boolean_of_a_section_that_inherits_is_set_there_alone() -> None:
    loaded = load_settings(IterateSettings, [*REQUIRED[IterateSettings], "--no-then_dpo.judging.balance"])
    assert isinstance(loaded, IterateSettings)
    assert loaded.then_dpo is not None
    assert (loaded.judging.balance, loaded.then_dpo.judging.balance) == (True, False)


@pytest.mark.parametrize(("cls", "name", "null"), ALL, ids=[f"{cls.__name__}-{name}" for cls, name, _ in ALL])
def test_what_is_no_boolean_is_one_line_that_names_the_option(
    cls: type[CommandSettings], name: str, null: bool
) -> None:
    """Every option with one wrong value, and each kind of wrong value with many an option."""
    wrong = [[f"--{name}=2"], [f"--{name}="], [f"--no-{name}", "true"], [f"--no-{name}=false"]]
    wrong += [] if null else [[f"--{name}", "null"]]
    place = ALL.index((cls, name, null))
    for words in ([f"--{name}", "maybe"], wrong[place % len(wrong)]):
        with pytest.raises(InputError) as fault:
            load_settings(cls, [*REQUIRED[cls], *words, *(LIST if cls is EvaluateSettings else [])])
        assert name in str(fault.value)
        assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--no-early_stop", "false"], "error: --no-early_stop takes no value (got 'false')"),
        (["--early_stop", "a", "--benchmark", "b"], "error: --early_stop: Input should be a valid boolean"),
        (["--benchmark", "a", "--serve", "b"], "error: unrecognized arguments: --serve b"),
        (["--limit"], "error: argument --limit: expected one argument"),
    ],
)
def test_a_wrong_value_ends_the_command_with_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run_command(EvaluateSettings, lambda _: 0, [*REQUIRED[EvaluateSettings], *arguments])
    said = capsys.readouterr().err
    assert (ended, said.count("\n")) == (2, 1)
    assert said.startswith(line)
    assert "did you mean --limit" not in said
