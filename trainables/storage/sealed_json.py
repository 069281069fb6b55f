"""Sealed JSON: an object with a sha256 of its content and of its place.

A file that is incomplete, altered or swapped with another trial's does not match its checksum, so
only what was written by this program is trusted. This guards against accidents, not attacks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"


class DamagedError(ValueError):
    """A file is not as it was written; the message says why."""


def with_checksum(value: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    """`value`, as it is after a round trip through JSON, with its checksum for `place`."""
    rest = json.loads(json.dumps({name: item for name, item in value.items() if name != SEAL}))
    return {SEAL: _digest(rest, place), **rest}


def verified(text: str | bytes, *, place: str) -> dict[str, Any]:
    """The value of a text from `with_checksum`; raises DamagedError if it was not for `place`."""
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise DamagedError("damaged: holds no mapping")
        seal = value.pop(SEAL, None)
        is_whole = seal == _digest(
            value, place
        )  # nesting that can be read may be too deep to be written
    except DamagedError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"damaged: not JSON ({error})") from error
    if not is_whole:
        raise DamagedError("damaged: its content does not match its sha256")
    return value


def _digest(value: Mapping[str, Any], place: str) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{place}\0{text}".encode()).hexdigest()
