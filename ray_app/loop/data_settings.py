"""Settings of what a run is made of: its instructions and its pairs (`instructions.…`, `pairs.…`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ray_app.base.prompts import CATEGORIES
from ray_app.base.settings_parts import Part, SamplingSettings


class DecontaminationSettings(Part):
    """Drop instructions that share an n-gram with any row of any configured benchmark."""

    enabled: bool = Field(True, description="whether it is done")
    ngram: int = Field(13, ge=3, description="words in a row that must be shared")
    min_words: int | None = Field(
        None,
        ge=3,
        description="benchmark prompts of fewer words than ngram, but at least so many, are found inside longer "
        "instructions too; null: only where an instruction is all of one",
    )
    generated: bool = Field(False, description="modified instructions and responses are checked too")


class InstructionSettings(Part):
    """Where instructions come from, and which are kept (paper, section 4.1)."""

    source: str = Field(description="JSONL or Parquet file or URI, or hf:DATASET_ID")
    hf_config: str | None = Field(None, description="the hub dataset's configuration")
    hf_split: str = Field("train", description="the hub dataset's split")
    text_column: str = Field("instruction", description="column of the instruction's text")
    id_column: str | None = Field("id", description="column of ids; without one, an id is made of the text")
    category_column: str | None = Field("category", description="column of categories, where the source has one")
    answer_column: str | None = Field(
        None, description="column of the right answer, where the source has one (pairs.strategy checked_answer)"
    )
    conversation_column: str | None = Field(None, description="WildChat's nested conversation: first user turn")
    languages: tuple[str, ...] = Field((), description="keep these (as the dataset spells them); empty: all")
    drop_toxic: bool = Field(True, description="drop rows that their source marks as toxic")
    max_characters: int = Field(20_000, ge=1, description="longer instructions are dropped")
    classify: bool = Field(False, description="ask the generator for category and complexity")
    classify_sampling: SamplingSettings = SamplingSettings(temperature=0, max_tokens=32)
    keep_categories: tuple[str, ...] = Field((), description=f"of: {', '.join(CATEGORIES)}; empty: all")
    min_complexity: int | None = Field(
        None, ge=1, le=10, description="keep instructions at least so complex (needs classify)"
    )
    heldout_fraction: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="share of the instructions that is never trained on; its pairs are an evaluation set",
    )
    near_duplicates: Literal["keep", "one_split", "drop"] = Field(
        "keep",
        description="instructions that share most of their wording (numbers count as equal): one_split keeps a cluster "
        "of them (A like B, B like C) on one side of the held-out split, as far as MinHash finds it; drop leaves none "
        "that repeats an earlier one. Take one_split: held-out figures are of known templates else",
    )
    near_similarity: float = Field(
        0.6,
        gt=0,
        le=1,
        description="near_duplicates: word trigrams that two of them share (Jaccard, by MinHash); of texts under 20 "
        "words runs of four characters too",
    )
    count: int | None = Field(
        None, ge=1, description="keep so many of those that are left after every filter, drawn by the run's seed"
    )
    balance_categories: bool = Field(False, description="count: as evenly from every category as they have")
    decontamination: DecontaminationSettings = DecontaminationSettings()

    @model_validator(mode="after")
    def _categories_are_known(self) -> InstructionSettings:
        unknown = sorted(set(self.keep_categories) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"instructions.keep_categories: unknown category {unknown[0]!r}")
        return self


class NeighbourSettings(Part):
    """Which instructions are neighbours (`strategy: neighbour_instruction`): cosine of TF-IDF vectors over words."""

    min_similarity: float = Field(0.1, ge=0, le=1, description="less similar ones are about something else")
    max_similarity: float = Field(0.8, gt=0, le=1, description="more similar ones ask for the same")


class PairSettings(Part):
    """How a response pair with a known better side is made (paper, section 3.2)."""

    strategy: Literal["modified_instruction", "neighbour_instruction", "checked_answer", "worse_response", "given"] = (
        Field(
            "modified_instruction",
            description="the worse response answers a modified instruction (the paper), or a similar other one of the "
            "instructions, or is wrong by a known answer, or is written worse on purpose; given: none is made, those "
            "of source are all",
        )
    )
    source: tuple[str, ...] = Field(
        (), description="files of pairs made elsewhere (docs/pairs.md), taken beside those of the strategy"
    )
    verdicts: tuple[str, ...] = Field(
        (), description="verdict files of source's pairs without a label (what judge writes), joined by id"
    )
    from_run: str | None = Field(
        None, description="folder of a run whose committed pairs are taken in place of the strategy's"
    )
    mirror: bool = Field(
        False, description="modified_instruction: the same two responses are a second pair under the modified one"
    )
    neighbours: NeighbourSettings = NeighbourSettings()
    samples: int = Field(
        8, ge=2, description="checked_answer: responses drawn at most, until one is right and one is wrong"
    )
    grader: Literal["numeric", "exact"] = Field(
        "numeric", description="checked_answer: equal as a number or formula (math-verify), or word by word"
    )
    heuristics: bool = Field(
        False, description="quarantine meta-talk, refusals, nearly equal responses, originals with something added"
    )
    max_length_ratio: float | None = Field(None, gt=1, description="of the two responses, in words")
    beyond_words: bool = Field(
        False,
        description="quarantine pairs whose better response has more of the instruction's words, and that of the "
        "mirror too; needs neighbours, or pairs.mirror",
    )
    ask_generator: bool = Field(
        False,
        description="quarantine pairs whose rejected response, as the generator says, does what the original "
        "instruction asks, or not even what its own asks",
    )
    ask_sampling: SamplingSettings = SamplingSettings(temperature=0, max_tokens=256)
    format: Literal["two_calls", "one_call"] = Field("two_calls", description="one_call: the paper's two-part format")
    sampling: SamplingSettings = SamplingSettings()
    modify_sampling: SamplingSettings | None = Field(None, description="of the modified instruction; null: sampling")
    max_similarity: float = Field(0.9, gt=0, le=1, description="of original and modified instruction (word trigrams)")
    refresh: Literal["never", "each_iteration"] = Field(
        "never", description="make new pairs from the same instructions in every iteration"
    )

    @property
    def makes(self) -> bool:
        """Whether the run's generator makes pairs, or all of them come from elsewhere."""
        return self.from_run is None and self.strategy != "given"

    @model_validator(mode="after")
    def _given_pairs_are_there(self) -> PairSettings:
        if self.strategy == "given" and not self.source and self.from_run is None:
            raise ValueError("pairs.strategy given: pairs.source or pairs.from_run must name the pairs")
        if self.verdicts and not self.source:
            raise ValueError("pairs.verdicts: pairs.source must name the pairs that they are of")
        if not self.makes and self.refresh != "never":
            raise ValueError("pairs.refresh each_iteration: pairs from elsewhere are the same in every iteration")
        return self

    @model_validator(mode="after")
    def _asking_needs_another_instruction(self) -> PairSettings:
        if self.ask_generator and self.strategy in ("worse_response", "checked_answer", "given"):
            raise ValueError(f"pairs.ask_generator: {self.strategy} has no second instruction to ask about")
        if self.ask_generator and not self.makes:
            raise ValueError("pairs.ask_generator: pairs of another run are not asked about; ask where they are made")
        return self

    @model_validator(mode="after")
    def _words_are_looked_at_both_ways(self) -> PairSettings:
        if self.beyond_words and not (self.makes and (self.mirror or self.strategy == "neighbour_instruction")):
            raise ValueError(
                "pairs.beyond_words needs pairs.strategy neighbour_instruction or pairs.mirror: of pairs without a "
                "mirror only those would be left in which the better response has fewer of the instruction's words"
            )
        return self

    @model_validator(mode="after")
    def _mirrors_need_another_instruction(self) -> PairSettings:
        if self.mirror and self.strategy == "worse_response":
            raise ValueError("pairs.mirror: a response that was written worse answers no other instruction")
        if self.mirror and self.strategy == "checked_answer":
            raise ValueError("pairs.mirror: a response that is wrong answers no other instruction")
        if self.mirror and not self.makes:
            raise ValueError("pairs.mirror: pairs from elsewhere are taken as they are, mirrors too; leave it off")
        return self
