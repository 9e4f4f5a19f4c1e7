"""What a run reads from outside besides its instructions: prompt files and gold sets. Each is read once.

Fingerprints are taken from the very objects that the stages use, so a file that is edited while a run goes on changes
nothing in it. A gold set is large, so only its hash is taken when the run is planned: where the file is another one by
the time it is loaded, the run stops and says so.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from ray_app.base.model_files import absolute
from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import Prompt, load_prompt, transcript
from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.benchmarks.registry import is_file, shows_four, split_spec
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.judging.judge import PROMPT_USES, BestOfPrompts, Judge, shipped_best_of
from ray_app.judging.protocol import Voting
from ray_app.loop.config import IterateSettings
from ray_app.run.storage import content_hash
from ray_app.train.trainable import Trainer

VALIDATION = "validation"  # the set that selects checkpoints, by this name whatever its file is called
# Wordings of the best-of prompts before fingerprints covered them.
FIRST_WORDING = {"judge_best_of": "8bf75cefa65bdaf7", "judge_single": "0363931dd6c5d32a"}


class Inputs:
    """Prompt files and gold sets of one run. Raises InputError naming a file that cannot be used."""

    def __init__(self, settings: IterateSettings) -> None:
        self.settings = settings
        self.best_of: BestOfPrompts = shipped_best_of()
        self._prompts: dict[str, Prompt] = {}
        self._baselines: dict[str, Prompt] | None = None
        self._hashes: dict[str, dict[str, str]] = {}
        self._sets: dict[tuple[str, int | None], Benchmark] = {}

    def prompt(self, setting: str) -> Prompt:
        """The prompt of a setting `prompts.SETTING`."""
        if setting not in self._prompts:
            self._prompts[setting] = load_prompt(getattr(self.settings.prompts, setting), setting)
        return self._prompts[setting]

    @property
    def baselines(self) -> dict[str, Prompt]:
        """{name: prompt} of `evaluation.baseline_prompts`; a name is a folder, so two of one name are an InputError."""
        if self._baselines is None:
            found: dict[str, Prompt] = {}
            for given in self.settings.evaluation.baseline_prompts:
                name = PurePath(given).stem
                if name in found:
                    raise InputError(f"evaluation.baseline_prompts: two of them are called {name}")
                found[name] = load_prompt(given, PROMPT_USES[self.settings.judging.mode])
            self._baselines = found
        return self._baselines

    def content(self, spec: str | None) -> dict[str, str]:
        """{spec: content hash} of a gold set's file, as of the first question; a hub id stands for itself."""
        if not spec:
            return {}
        if spec not in self._hashes:
            _, path = split_spec(spec)
            self._hashes[spec] = {spec: content_hash(path) if is_file(path) else spec}
        return self._hashes[spec]

    def gold_set(self, spec: str, limit: int | None) -> Benchmark:
        """A gold set, loaded once. Raises InputError where its file has changed since its hash was taken."""
        if (spec, limit) not in self._sets:
            known = self.content(spec)
            benchmark = load_benchmark(spec, limit)
            _, path = split_spec(spec)
            if is_file(path) and content_hash(path) != known[spec]:
                raise InputError(f"{path} has changed since this command began: start it again")
            self._sets[spec, limit] = benchmark
        return self._sets[spec, limit]

    def contamination(self) -> Contamination:
        """What instructions and pairs must not share with the configured benchmarks; empty where that is not asked."""
        part = self.settings.instructions.decontamination
        grams = Contamination(part.ngram, part.min_words)
        if part.enabled:
            for spec in self.settings.benchmarks:
                grams.add(transcript(text) for text in self.gold_set(spec, None).instructions())
        return grams

    def generated_contamination(self) -> Contamination | None:
        """The same for texts that the generator writes, where these are checked."""
        part = self.settings.instructions.decontamination
        return self.contamination() if part.enabled and part.generated else None

    def covered(self, spec: str = "", prompt: Prompt | None = None) -> dict[str, Any]:
        """The settings that decide what a judge answers on a set of this spec: part of a fingerprint. `prompt`: another
        one than the run's.
        """
        part, protocol = self.settings.evaluation, self.settings.protocol
        best_of = bool(spec) and shows_four(spec)
        shown = prompt or self.prompt(protocol.prompt_setting)
        prompts = {"judge": shown.hash} | (self._best_of_covered() if best_of else {})
        return {
            "evaluation": part.model_dump(mode="json", include={"limit", "votes", "generation", "early_stop"}),
            "judging": {"stop_after_verdict": self.settings.stop_after_verdict},
            "prompts": prompts,
        } | dict(protocol.fingerprinted)

    def _best_of_covered(self) -> dict[str, str]:
        """Hashes of the best-of prompts where their wording is not the first: what was judged with that, before it was
        in a fingerprint, is not judged anew.
        """
        return {name: digest for name, digest in self.best_of.hashes().items() if digest != FIRST_WORDING[name]}

    def judge(self, engine: EngineSettings, name: str, prompt: Prompt | None = None) -> Judge:
        """The judge that `engine` serves, with this run's prompts, or another one than its own; `name` in the rows it
        judges.
        """
        settings = self.settings
        return Judge(
            engine,
            prompt or self.prompt(settings.protocol.prompt_setting),
            settings.stop_after_verdict,
            settings.judging.mode,
            name,
            self.best_of,
        )

    def voting(self, iteration: int) -> Voting:
        """How the judge of `iteration` is asked about gold sets."""
        part = self.settings.evaluation
        return Voting(part.generation, part.votes, self.settings.seed, part.early_stop, iteration=iteration)


def trainer_of(settings: IterateSettings) -> Trainer:
    """What training will do with a row of this run."""
    seed = settings.judge
    return Trainer(absolute(seed.model), seed.revision, settings.train.sequence_length, seed.chat_template_kwargs)
