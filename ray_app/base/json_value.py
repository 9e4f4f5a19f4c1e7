"""JSON from outside: what no Python code can take is refused while it is read. Pure."""

from __future__ import annotations

import json
import sys
from typing import Any

MAX_DEPTH = 100
TOO_DEEP = f"it is nested more than {MAX_DEPTH} deep"


def parse_json(data: bytes | str) -> Any:
    """The value of `data`. Raises ValueError (json.JSONDecodeError, UnicodeDecodeError) for anything else, also for
    numbers of thousands of digits and values nested deeper than `MAX_DEPTH`, which break code that reads fewer.
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's limit; its own message advises programmers
        raise ValueError(f"a number has more than {sys.get_int_max_str_digits()} digits") from None
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(TOO_DEEP)
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        below = [inner for outer in level for inner in _children(outer) if isinstance(inner, (list, dict))]
        if not below:
            return False
        level = below
    return True


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
