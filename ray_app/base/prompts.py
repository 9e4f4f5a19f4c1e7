"""Prompt files and how they become chat messages. They are in `prompt_files/`, or wherever a setting says.

A prompt file is YAML: `name`, `user` (a Jinja template), and optionally `system` and `letters`. Every variable
is neutralised (see `verdict.neutralise`, `tokens.broken`) here, in the messages, before any chat template.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import yaml

from ray_app.base.schema import Message, Text, content_id
from ray_app.base.tokens import broken
from ray_app.base.verdict import neutralise
from ray_app.errors import InputError, first_line

PROMPTS_DIR = Path(__file__).resolve().parents[1] / "prompt_files"

# The paper classifies WildChat's instructions into 15 categories (section 4.1); names and definitions are ours. What
# each one means stands in prompt_files/classify.yaml, so that the prompt's hash covers it.
CATEGORIES = (
    "coding",
    "mathematical reasoning",
    "asking for advice",
    "brainstorming",
    "classification",
    "closed question answering",
    "creative writing",
    "extraction",
    "inhabiting a character",
    "open question answering",
    "reasoning",
    "rewriting",
    "summarization",
    "translation",
    "other",
)


RESPONSES = ("response_a", "response_b", "response_c", "response_d")
# What each prompt must show, by its setting; a judge that is not shown a response would guess, and nothing would tell.
SHOWN: dict[str, tuple[str, ...]] = {
    "judge": ("instruction", *RESPONSES[:2]),
    "judge_single": ("instruction", "response"),
    "judge_best_of": ("instruction", *RESPONSES),
    "modify_instruction": ("instruction",),
    "modify_and_respond": ("instruction",),
    "worse_response": ("instruction", "response"),
    "check_response": ("instruction", "response"),
    "classify": ("instruction",),
}
OFFERED: dict[str, tuple[str, ...]] = {"modify_and_respond": ("response",), "classify": ("categories",)}  # if wanted


@dataclass(frozen=True)
class Prompt:
    """One prompt file; picklable, so that programs carry it into the engine actors."""

    name: str
    user: str
    system: str = ""
    letters: str = "AB"
    control: frozenset[str] = frozenset()  # control tokens of the model that reads it: no text of a row becomes one

    def guarded(self, control: frozenset[str]) -> Prompt:
        """The same wording, for a model whose tokenizer has these control tokens."""
        return replace(self, control=control)

    @property
    def hash(self) -> str:
        """Identity of the wording, for fingerprints and `judge.json`."""
        return content_id([self.system, self.user, self.letters])

    def render(self, **variables: Any) -> list[Message]:
        """Chat messages with every text variable neutralised. Raises InputError for an unknown variable."""
        clean = {key: _clean(value, self.control) for key, value in variables.items()}
        messages: list[Message] = []
        if self.system:
            messages.append({"role": "system", "content": _render(self.name, self.system, clean)})
        messages.append({"role": "user", "content": _render(self.name, self.user, clean)})
        return messages

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "system": self.system, "user": self.user, "letters": self.letters}


def load_prompt(path_or_name: str, use: str | None = None) -> Prompt:
    """A prompt by file path, or by the name of a shipped one, for one `use` (of `SHOWN`; None: whatever it shows).

    Raises InputError naming the file and the fault: what it does not show, or shows in another way than it means.
    """
    path = Path(path_or_name)
    if not path.exists() or path.is_dir():  # a folder may well be called as a shipped prompt is
        path = PROMPTS_DIR / f"{path_or_name.removesuffix('.yaml')}.yaml"
    if not path.exists():
        shipped = ", ".join(sorted(file.stem for file in PROMPTS_DIR.glob("*.yaml")))
        raise InputError(f"prompt file {path_or_name} does not exist, nor is it the name of a shipped one: {shipped}")
    try:
        prompt = prompt_from(yaml.safe_load(path.read_text(encoding="utf-8")))
        if use is not None:
            require_shown(prompt, use)
        return prompt
    except (yaml.YAMLError, TypeError, ValueError, AttributeError) as fault:
        raise InputError(f"prompt file {path_or_name}: {first_line(fault)}") from fault


def prompt_from(fields: dict[str, str]) -> Prompt:
    """A prompt from the fields of a prompt file or of `judge.json`; raises ValueError naming the fault."""
    if not isinstance(fields, dict):
        raise ValueError("it is no mapping with a `user` template")
    unknown = set(fields) - {"name", "system", "user", "letters"}
    if unknown or not fields.get("user"):
        raise ValueError(f"unknown keys {sorted(unknown)}" if unknown else "no `user` template")
    given: dict[str, Any] = {key: str(value) for key, value in fields.items() if value is not None}
    if not given.get("system", "").strip():
        given.pop("system", None)  # a blank one is none: it would be an empty message, or the word None
    return Prompt(**given)


def require_shown(prompt: Prompt, use: str) -> None:
    """Raises ValueError naming a variable that the prompt does not show, or that nobody gives it."""
    source = f"{prompt.system}\n{prompt.user}"
    try:
        used = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(source))
    except jinja2.TemplateError as fault:
        raise ValueError(f"its template is broken: {fault}") from fault
    known = (*SHOWN[use], *OFFERED.get(use, ()))
    for name in SHOWN[use]:
        if name not in used:
            single = re.search(rf"(?<!\{{)\{{\s*{name}\s*\}}(?!\}})", source)
            hint = f"; it has {single.group(0)}, and a variable is written {{{{ {name} }}}}" if single else ""
            raise ValueError(f"it never shows {name}{hint}")
    if unknown := sorted(used - set(known)):
        raise ValueError(f"nothing is called {unknown[0]}; there are {', '.join(known)}")


def as_messages(text: Text, control: frozenset[str] = frozenset()) -> list[Message]:
    """An instruction as the conversation a generator with these control tokens answers."""
    if isinstance(text, str):
        return [{"role": "user", "content": _clean(text, control)}]
    return [{"role": m["role"], "content": _clean(m["content"], control)} for m in text]


def transcript(text: Text) -> str:
    """A text as prompts show it: a string as it is, a conversation as a labelled transcript."""
    if isinstance(text, str):
        return text
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in text)


def contents(text: Text) -> str:
    """The words of a text alone, without the labels of its turns."""
    return text if isinstance(text, str) else "\n\n".join(message["content"] for message in text)


def _clean(value: Any, control: frozenset[str]) -> Any:
    if isinstance(value, str):
        return broken(neutralise(value), control)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return broken(neutralise(transcript(value)), control)
    return value


@functools.lru_cache(maxsize=64)
def _template(source: str) -> jinja2.Template:
    return jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=False).from_string(source)


def _render(name: str, source: str, variables: dict[str, Any]) -> str:
    try:
        return _template(source).render(**variables).strip()
    except jinja2.TemplateError as fault:
        raise InputError(f"prompt {name}: {fault}") from fault
