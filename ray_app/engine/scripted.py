"""The scripted engine, for tests of the orchestration only: never for a result.

Its answers are a pure function of the prompt and the seed. `script` settings:
    p            probability that a judgment is right, per prompt drawn from this list by hash (default [0.5])
    p_of         {text: p} for models whose name holds the text (the longest), instead of `p` (default {})
    unparsed     probability that a judgment has no verdict (default 0)
    delay_s      seconds a request takes (default 0)
    fail         probability that a request fails (default 0)
    refuse       probability that a request is refused (default 0)
    gold_marker  the response that holds this text is the better one (default "GOOD")
    words        words of an answer, drawn from this list by hash (default [12])
    says_yes     probability that a question for yes or no is answered with yes (default: answered as any prompt)
    answers      texts of which an answer ends in one, drawn by hash (default: none)
    letter       every verdict names this letter (default: none, `p` decides)
    hold         regular expression: a request with a prompt that it finds waits for the file `until` (default: none)
    until        path of that file; without it, such a request is never answered
Faults of an engine:
    kills        regular expression: a request with a prompt that it finds ends the engine's process
    stalls       the same; from then on the engine answers nothing, and its process lives on
    stalls_once  path: only the engine that makes this file stalls (default: every one)
    broken       path: of all engines, the one that makes this file fails every request from then on
    no_start     path: a start that finds this file removes it, and fails

The answer to a modified instruction holds no gold marker, so the pairs it makes have a better side. A pointwise judge
gives the better response 8 and the other 3, where it is right.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from ray_app.base.local_copy import local_model
from ray_app.base.schema import Message, unit_interval
from ray_app.engine.base import Completion, EngineDied, EngineError, Prepared, RequestRefused, Sampling, room_for
from ray_app.engine.settings import EngineSettings

POLL_S = 0.05
_MODIFIED = "other"
_SECTION = re.compile(r"<response_([a-d])>(.*?)</response_\1>", re.DOTALL)
_SINGLE = re.compile(r"<response>(.*?)</response>.*\[\[4\]\]", re.DOTALL)


class ScriptedFaults:
    """What goes wrong with a scripted engine. Raises RuntimeError where it is not to start."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.kills, self.stalls = (
            re.compile(script[name], re.DOTALL) if name in script else None for name in ("kills", "stalls")
        )
        self.once, self.breaks = (Path(script[name]) if name in script else None for name in ("stalls_once", "broken"))
        self.stalled = self.broken = False
        if "no_start" in script and Path(script["no_start"]).exists():
            Path(script["no_start"]).unlink()
            raise RuntimeError("scripted: the engine does not start")

    async def met(self, prompt: str) -> None:
        """Raises EngineDied or EngineError, or does not return."""
        if self.kills and self.kills.search(prompt):
            raise EngineDied("scripted death")
        if self.stalls and self.stalls.search(prompt) and (self.once is None or _first(self.once)):
            self.stalled = True
        while self.stalled:
            await asyncio.sleep(POLL_S)
        if self.breaks and not self.broken:
            self.broken, self.breaks = _first(self.breaks), None
        if self.broken:
            raise EngineError("scripted: this engine is broken")


def _first(path: Path) -> bool:
    """Whether this call has made the file."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class ScriptedEngine:
    """Deterministic judgments, answers and modified instructions."""

    control: frozenset[str] = frozenset()  # it is sent messages

    def __init__(self, settings: EngineSettings) -> None:
        self.settings, script = settings, settings.script
        self.p: list[float] = list(script.get("p", [0.5]))
        self.p_of: dict[str, list[float]] = dict(script.get("p_of", {}))
        self.unparsed = float(script.get("unparsed", 0))
        self.delay = float(script.get("delay_s", 0))
        self.fail = float(script.get("fail", 0))
        self.refuse = float(script.get("refuse", 0))
        self.marker = str(script.get("gold_marker", "GOOD"))
        self.words: list[int] = list(script.get("words", [12]))
        self.answers: list[str] = list(script.get("answers", [""]))
        self.yes: float | None = script.get("says_yes")
        self.letter: str | None = script.get("letter")
        self.made, self.asleep = 0, False
        local_model(settings.model)  # no word of it is read, but it comes to the node as for any engine
        self.hold = re.compile(script["hold"], re.DOTALL) if "hold" in script else None
        self.until = Path(script["until"]) if "until" in script else None
        self.faults = ScriptedFaults(script)

    def prepare(self, messages: list[Message]) -> Prepared:
        tokens = sum(len(m["content"].split()) for m in messages)
        room_for(tokens, self.settings.max_model_len or 10**9, 1)
        return Prepared(messages)

    async def generate(self, prepared: Prepared, sampling: Sampling, seed: int | None) -> Completion:
        if self.asleep:
            raise EngineError("asked while it sleeps")
        if self.delay:
            await asyncio.sleep(self.delay)
        prompt = prepared.messages[-1]["content"]
        await self.faults.met(prompt)
        while self.hold and self.hold.search(prompt) and not (self.until and self.until.exists()):
            await asyncio.sleep(POLL_S)
        if self._draw("fail", prompt, seed) < self.fail:
            raise EngineError("scripted failure")
        if self._draw("refuse", prompt, seed) < self.refuse:
            raise RequestRefused("scripted refusal")
        text = self._answer(prompt, seed)
        self.made += len(text.split())
        return Completion(text, "stop", len(prompt.split()), len(text.split()))

    def _answer(self, prompt: str, seed: int | None) -> str:
        sections: dict[str, str] = dict(_SECTION.findall(prompt))
        length = self.words[int(self._draw("words", prompt, None) * len(self.words))]
        filler = " ".join([f"w{int(self._draw('text', prompt, seed) * 1e6)}"] * length)
        single = _SINGLE.search(prompt)
        if self.yes is not None and prompt.endswith("yes or no."):
            return "Yes." if self._draw("yes", prompt, seed) < self.yes else "No."
        if len(sections) < 2 and not single:
            modified = "<instruction>" in prompt or prompt.startswith(_MODIFIED)
            ending = self.answers[int(self._draw("answers", prompt, seed) * len(self.answers))]
            return f"{_MODIFIED if modified else self.marker} {filler} {ending}".rstrip()
        if self._draw("unparsed", prompt, seed) < self.unparsed:
            return filler
        named = [text for text in self.p_of if text in self.settings.model]
        chances = self.p_of[max(named, key=len)] if named else self.p
        p = chances[int(self._draw("p", prompt, None) * len(chances))]
        right = self._draw("verdict", prompt, seed) < p
        if single:
            return f"{filler} [[{8 if (self.marker in single.group(1)) == right else 3}]]"
        if self.letter:
            return f"{filler} [[{self.letter}]]"
        gold = next((name.upper() for name, text in sections.items() if self.marker in text), "B")
        others = [name.upper() for name in sections if name.upper() != gold]
        return f"{filler} [[{gold if right else others[0]}]]"

    def _draw(self, *parts: Any) -> float:
        return unit_interval(*parts)

    def generated(self) -> int:
        return self.made

    async def reload(self, model: str) -> None:
        self.settings = self.settings.model_copy(update={"model": model})

    async def sleep(self) -> None:
        self.asleep = True

    async def wake(self, model: str) -> None:
        await self.reload(model)
        self.asleep = False

    async def start_parts(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        return None
