"""Self-Taught Evaluators (arXiv 2408.02666) on Ray: train an LLM judge without human preference labels.

from ray_app import Judge    # a judge in Python; the commands are ray_app.iterate, ray_app.judge, ray_app.evaluate
"""

from typing import TYPE_CHECKING, Any

from ray_app.errors import InputError, RunError

if TYPE_CHECKING:
    from ray_app.judging.ranking import Ranking as Ranking
    from ray_app.serving.python_api import Judge as Judge
    from ray_app.serving.python_api import Verdict as Verdict

__version__ = "0.1.0"
__all__ = ["InputError", "Judge", "Ranking", "RunError", "Verdict"]
_HOMES = {"Judge": "serving.python_api", "Verdict": "serving.python_api", "Ranking": "judging.ranking"}


def __getattr__(name: str) -> Any:
    """Loads what costs seconds (Ray) when it is asked for: commands need it later, `--help` never."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
