"""A plugin of vLLM, for tests alone: a request whose prompt holds certain tokens ends the engine's process, as a fault
of a kernel does. vLLM finds it where this folder is on the path; the tokens stand in STE_POISON.
"""

from __future__ import annotations

import json
import os
from typing import Any

VARIABLE = "STE_POISON"


def register() -> None:
    """Called by vLLM in each of its processes (its group `vllm.general_plugins`)."""
    from vllm.v1.engine.core import EngineCore

    poison: list[int] = json.loads(os.environ[VARIABLE])
    usual = EngineCore.add_request

    def add_request(self: Any, request: Any, *more: Any) -> None:
        ids = list(request.prompt_token_ids or ())
        if any(ids[at : at + len(poison)] == poison for at in range(len(ids))):
            os.abort()
        usual(self, request, *more)

    EngineCore.add_request = add_request
