"""What `make` says of this machine before it installs anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AVX2 = "fpu sse4_2 fma f16c avx avx2 bmi2"
AVX512 = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"


def check(cpuinfo: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    line = [str(ROOT / "scripts" / "check_platform.sh"), python]
    environment = {**os.environ, "CPUINFO": str(cpuinfo)}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)


def processor(folder: Path, flags: str) -> Path:
    """A cpuinfo of two cores with these flags, as Linux writes it."""
    core = f"vendor_id\t: GenuineIntel\nflags\t\t: {flags}\nvmx flags\t: ept vpid avx2\nbugs\t\t:\n\n"
    file = folder / "cpuinfo"
    file.write_text(f"processor\t: 0\n{core}processor\t: 1\n{core}")
    return file


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (AVX2, "AVX2, without bf16 instructions"),
        (f"{AVX2} avx_vnni avx_ne_convert", "AVX2, without bf16 instructions"),
        (f"{AVX2} avx512f avx512cd avx512er avx512pf", "AVX2, without bf16 instructions"),  # Xeon Phi
        (AVX512, "AVX-512, without bf16 instructions"),
        (f"{AVX512} avx512_bf16", "with bf16 instructions"),
        (f"{AVX512} amx_tile amx_int8 amx_bf16", "with bf16 instructions"),
    ],
)
def test_the_kind_of_processor_is_one_line(tmp_path: Path, flags: str, kind: str) -> None:
    found = check(processor(tmp_path, flags))
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith(f"processor: {kind} (")
    assert found.stdout.count("\n") == 1


@pytest.mark.parametrize("flags", ["fpu sse4_2 avx f16c", "fpu sse4_2 avx avx2", "avx2x xavx2 f16c", "AVX2 F16C"])
def test_less_than_avx2_is_refused_in_one_line(tmp_path: Path, flags: str) -> None:
    found = check(processor(tmp_path, flags))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: vLLM needs a processor with AVX2 and F16C")
    assert found.stderr.count("\n") == 1


def test_a_machine_that_does_not_say_is_refused(tmp_path: Path) -> None:
    for cpuinfo in (tmp_path / "missing", processor(tmp_path, "")):
        found = check(cpuinfo)
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr == f"error: {cpuinfo} does not say what this processor can do\n"


def test_what_else_is_missing_is_said_instead_of_the_kind(tmp_path: Path) -> None:
    found = check(processor(tmp_path, AVX512), python="")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: python3 is not installed")
