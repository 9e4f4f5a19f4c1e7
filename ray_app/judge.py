"""Use a judge: a file of response pairs in, a file of verdicts out; or the same behind HTTP.

    python -m ray_app.judge --model M --input pairs.jsonl --output verdicts.jsonl [--votes 32] [--limit N]
    python -m ray_app.judge --model M --rank --input responses.jsonl --output ranks.jsonl [--preferences prefs.jsonl]
    python -m ray_app.judge --model M --serve [--http.port 8000] [--votes 8]

Both orders of every pair are judged. Votes are durable as they come, in OUTPUT.parts/ (one Parquet row a vote, with its
explanation), so the same command continues after a kill; the verdict file appears whole, in the input's order.
"""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds, and to stop meanwhile is no failure either
    from ray_app.system.stopping import listen

    listen()

from typing import NoReturn

from ray_app.command.load_settings import leave, run_command
from ray_app.command.settings import JudgeSettings
from ray_app.errors import InputError


def main(settings: JudgeSettings) -> int:
    """Judge what no closed shard holds yet, then write the verdict file; or serve."""
    # Ray and the rest are loaded here, so that `--help` and a wrong setting answer at once.
    from ray_app.command.judge_file import judge_file
    from ray_app.command.judging import serve_judge
    from ray_app.command.rank_file import rank_file

    if settings.serve:
        files = ("input", "output", "limit", "preferences")
        given = next((name for name in files if getattr(settings, name) is not None), None)
        if given:
            raise InputError(f"--{given} has no meaning with --serve: pairs come over HTTP")
        serve_judge(settings, settings.http)
    if settings.input is None or settings.output is None:
        raise InputError(f"--{'input' if settings.input is None else 'output'} is missing")
    if settings.preferences is not None and not settings.rank:
        raise InputError("--preferences needs --rank")
    if settings.rank and settings.explanations:
        raise InputError("--explanations has no meaning with --rank: the texts are in OUTPUT.parts")
    return (rank_file if settings.rank else judge_file)(settings, settings.input, settings.output)


def entry_point() -> NoReturn:
    """`ste-judge`, and `python -m ray_app.judge`."""
    leave(run_command(JudgeSettings, main))


if __name__ == "__main__":
    entry_point()
