"""Which engines there are, by `kind` of their settings. A new one: a class like `openai_engine.py` and a line here."""

from __future__ import annotations

from ray_app.engine.base import Engine, Start
from ray_app.engine.settings import EngineSettings


def build_engine(settings: EngineSettings, start: Start) -> Engine:
    """The engine of these settings."""
    if settings.kind == "openai":
        from ray_app.engine.openai_engine import OpenAIEngine

        return OpenAIEngine(settings)
    if settings.kind == "scripted":
        from ray_app.engine.scripted import ScriptedEngine

        return ScriptedEngine(settings)
    from ray_app.engine.vllm_engine import VllmEngine

    return VllmEngine(settings, start)
