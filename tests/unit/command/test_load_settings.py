"""Settings: precedence, one-line errors that name the key, exit codes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loop_runs import CONFIGS_DIR, ROOT
from pydantic import BaseModel

from ray_app.command.load_settings import load_settings, run_command
from ray_app.errors import InputError, RunError
from ray_app.loop.config import IterateSettings

DEMO = str(CONFIGS_DIR / "smollm2-135m-cpu.yaml")
ALL = sorted(CONFIGS_DIR.glob("*.yaml"))


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
def test_every_shipped_config_loads(path: Path) -> None:
    settings = load_settings(IterateSettings, ["--config", str(path)])
    assert settings.name


def test_there_are_the_four_promised_configs() -> None:
    promised = {"smollm2-135m-cpu", "smollm2-135m-1gpu", "llama3.1-8b-1x8", "llama3.1-70b-3x8"}
    assert promised <= {path.stem for path in ALL}


def test_command_line_beats_environment_beats_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(IterateSettings, ["--config", DEMO]).iterations == 2
    monkeypatch.setenv("STE_ITERATIONS", "3")
    monkeypatch.setenv("STE_TRAIN__LR", "3e-6")
    settings = load_settings(IterateSettings, ["--config", DEMO, "--iterations", "4"])
    assert settings.iterations == 4
    assert settings.train.lr == 3e-6
    assert settings.train.epochs == load_settings(IterateSettings, ["--config", DEMO]).train.epochs


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value of the tree that has one, with its name."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float):
            yield prefix + name, value


def test_every_value_can_be_given_on_the_command_line() -> None:
    """There everything is text: a number that is one of a few has to be read as a number."""
    before = load_settings(IterateSettings, ["--config", DEMO])
    given = [part for name, value in leaves(before) for part in (f"--{name}", str(value))]
    assert len(given) > 300
    assert load_settings(IterateSettings, ["--config", DEMO, *given]).model_dump() == before.model_dump()


def test_dotted_option_changes_one_setting_only() -> None:
    before = load_settings(IterateSettings, ["--config", DEMO])
    after = load_settings(IterateSettings, ["--config", DEMO, "--train.lr", "1e-6", "--limit", "5"])
    assert (after.train.lr, after.limit) == (1e-6, 5)
    assert after.train.model_copy(update={"lr": before.train.lr}) == before.train


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--config", DEMO, "--train.lrr", "1"], "--train.lr?"),
        (["--config", DEMO, "--iterations", "many"], "iterations"),
        (["--config", DEMO, "--train.lr", "fast"], "train.lr"),
        (["--config"], "--config needs a file"),
        ([], "name is missing"),
    ],
)
def test_a_bad_call_is_one_line_that_names_the_thing(arguments: list[str], named: str) -> None:
    with pytest.raises(InputError) as fault:
        load_settings(IterateSettings, arguments)
    assert named in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train: {lrr: 1}", "unknown setting train.lrr; did you mean train.lr?"),
        ("itertions: 2", "unknown setting itertions; did you mean iterations?"),
        ("a: [1", "line"),
        ("- 1", "holds no settings"),
    ],
)
def test_a_bad_config_file_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    base = Path(DEMO).read_text()
    path = tmp_path / "x.yaml"
    path.write_text(text if text.startswith(("a:", "-")) else base.split("train:")[0] + text + "\n")
    with pytest.raises(InputError) as fault:
        load_settings(IterateSettings, ["--config", str(path)])
    assert named in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [(InputError("no x"), 2, "error: no x"), (RunError("empty"), 1, "failed: empty"), (ValueError("bug"), 1, "bug")],
)
def test_exit_codes(fault: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: IterateSettings) -> int:
        raise fault

    assert run_command(IterateSettings, main, ["--config", DEMO]) == code
    err = capsys.readouterr().err
    assert said in err
    assert ("Traceback" in err) == isinstance(fault, ValueError)


def test_an_option_changes_one_role_of_an_anchor() -> None:
    """YAML aliases share one object; an option of one role must not reach the others."""
    settings = load_settings(
        IterateSettings, ["--config", str(CONFIGS_DIR / "llama3.1-8b-1x8.yaml"), "--judge.model", "X/Y"]
    )
    assert settings.judge.model == "X/Y"
    assert settings.generator.model != "X/Y"


@pytest.mark.parametrize("name", ["STE_TRAIN", "STE_GENERATOR__ENV"])
def test_an_environment_variable_that_is_no_json_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "abc")
    with pytest.raises(InputError, match="environment"):
        load_settings(IterateSettings, [])


def test_a_key_that_is_no_name_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("1: 2\n")
    with pytest.raises(InputError, match="1 is not the name"):
        load_settings(IterateSettings, ["--config", str(file)])


@pytest.mark.parametrize("later", [None, RuntimeError("cannot join thread before it is started"), RunError("judging")])
def test_an_interrupt_is_told_as_one_whatever_it_breaks(
    capsys: pytest.CaptureFixture[str], later: Exception | None
) -> None:
    def main(_: IterateSettings) -> int:
        try:
            raise KeyboardInterrupt
        finally:
            if later:
                raise later

    assert run_command(IterateSettings, main, ["--config", DEMO]) == 130
    assert capsys.readouterr().err == "interrupted; the same command continues this run\n"


@pytest.fixture
def usual_sigint() -> Iterator[None]:
    """Whoever started these tests may ignore SIGINT (a shell, for what it puts in the background), or handle it."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, found)


@pytest.mark.usefixtures("usual_sigint")
def test_an_interrupt_that_nobody_can_be_raised_to_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    class Deaf:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it was interrupted before this")

    def main(_: IterateSettings) -> int:
        Deaf()
        raise TypeError("what the interrupt left behind")

    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    assert run_command(IterateSettings, main, ["--config", DEMO]) == 130
    assert capsys.readouterr().err == "interrupted; the same command continues this run\n"
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


@pytest.mark.parametrize("command", ["iterate", "judge", "evaluate"])
def test_a_command_starts_without_the_model_libraries(command: str) -> None:
    """They cost seconds at every start, also of one that only finds a fault in its settings."""
    code = (
        f"import sys, ray_app.{command}; print(sorted({{'torch', 'transformers', 'vllm', 'scipy'}} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_a_bad_value_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*arguments: str) -> str:
        with pytest.raises(InputError) as fault:
            load_settings(IterateSettings, ["--config", DEMO, *arguments])
        return str(fault.value)

    assert told("--train.lr", "fast").startswith("--train.lr: ")
    assert told("--judging.samples", "0").startswith("--judging.samples: ")
    monkeypatch.setenv("STE_TRAIN__LR", "fast")
    assert told().startswith("environment: train.lr: ")
    assert "--train.lr" not in told("--train.epochs", "3")
    monkeypatch.delenv("STE_TRAIN__LR")
    file = tmp_path / "c.yaml"
    file.write_text(Path(DEMO).read_text().replace("lr: 1.0e-4", "lr: fast"))
    with pytest.raises(InputError, match=f"^{file}: train.lr: "):
        load_settings(IterateSettings, ["--config", str(file), "--train.epochs", "3"])


@pytest.mark.parametrize(
    ("yaml", "options", "dtype"),
    [
        ("bf16: true", ["--train.dtype", "float32"], "float32"),
        ("bf16: false", ["--train.dtype", "auto"], "auto"),
        ("dtype: bfloat16", ["--train.bf16", "false"], "float32"),
        ("bf16: true", ["--no-train.bf16"], "float32"),
        ("bf16: true", [], "bfloat16"),
    ],
)
def test_a_later_place_wins_by_either_name(tmp_path: Path, yaml: str, options: list[str], dtype: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(Path(DEMO).read_text().replace("train:\n", f"train:\n  {yaml}\n"))
    assert load_settings(IterateSettings, ["--config", str(file), *options]).train.dtype == dtype


def test_both_names_in_one_place_exclude_each_other() -> None:
    with pytest.raises(InputError, match=r"^--train: dtype auto and bf16 true"):
        load_settings(IterateSettings, ["--config", DEMO, "--train.dtype", "auto", "--train.bf16", "true"])
