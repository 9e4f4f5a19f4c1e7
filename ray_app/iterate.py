"""The loop: instructions → pairs → judgments → training set → checkpoint → evaluation → next iteration.

    python -m ray_app.iterate --config configs/smollm2-135m-cpu.yaml [--iterations 3] [--train.lr 1e-6] [--limit 16]

The same command again continues: a committed stage is never redone, and an interrupted one starts from its closed
shards. A setting that would make committed work wrong is an error that names the setting and the stage.
"""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds, and to stop meanwhile is no failure either
    from ray_app.system.stopping import listen

    listen()

from typing import NoReturn

from ray_app.command.load_settings import leave, run_command
from ray_app.loop.config import IterateSettings


def main(settings: IterateSettings) -> int:
    """Run what is left of the loop and print the table."""
    # Ray and the rest are loaded here, so that `--help` and a wrong setting answer at once.
    from ray_app.loop.run import run

    return run(settings)


def entry_point() -> NoReturn:
    """`ste-iterate`, and `python -m ray_app.iterate`."""
    leave(run_command(IterateSettings, main))


if __name__ == "__main__":
    entry_point()
