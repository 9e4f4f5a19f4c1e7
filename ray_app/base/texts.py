"""The one contract of texts from outside: instructions and responses, as strings or as chat messages. Pure.

A message has a role and a content: a string, or a list of parts {"type": "text", "text": …} whose texts are joined.
What else there is (images, tool calls, null) is no text that a judge can be shown, and its row is quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_app.base.schema import Message, Text

CHAT_ROLES = ("system", "user", "assistant")


def text_fault(value: Any) -> str | None:
    """`empty`, `not_a_text`, or None for a text."""
    if value is None or value == "" or value == []:
        return "empty"
    if isinstance(value, str):
        return None if value.strip() else "empty"
    contents = [content_of(message) for message in value] if isinstance(value, list) else [None]
    if None in contents:
        return "not_a_text"
    return None if any((content or "").strip() for content in contents) else "empty"


def conversation_fault(value: Any) -> str | None:
    """The same for what a generator is to answer. A conversation of messages must besides have roles that chat
    templates know (`unknown_role`) and end with the user's turn (`ends_with_assistant`, `empty`).
    """
    fault = text_fault(value)
    if fault is not None or isinstance(value, str):
        return fault
    if any(message["role"] not in CHAT_ROLES for message in value):
        return "unknown_role"
    if value[-1]["role"] != "user":
        return "ends_with_assistant" if value[-1]["role"] == "assistant" else "ends_with_system"
    return None if (content_of(value[-1]) or "").strip() else "empty"


def as_text(value: Any) -> Text:
    """A text without fault, its messages with role and content alone, each content a string."""
    if isinstance(value, str):
        return value
    return [Message(role=message["role"], content=content_of(message) or "") for message in value]


def content_of(message: Any) -> str | None:
    """The content of a message as a string; None where it is no message, or none of text alone."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return None
    content = message.get("content")
    if message.get("tool_calls"):
        return None  # what was said beside a call is not all of the message
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    texts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if len(known) == len(texts) else None
