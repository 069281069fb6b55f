"""Architectures: whether transformers has a causal language model for a config.json.

Its tables of classes are read as text, because importing them imports torch, which the driver
doesn't have.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

_CAUSAL, _MASKED, _BASE = "MODEL_FOR_CAUSAL_LM", "MODEL_FOR_MASKED_LM", "MODEL"
_TABLE = re.compile(r"^(\w+)_MAPPING_NAMES = OrderedDict\($(.*?)^\)$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r'\("([^"]+)", "([^"]+)"\)')
_ADVICE = "Give a decoder that was saved as a causal language model (...ForCausalLM)."


def architecture_fault(config: Mapping[str, Any]) -> str | None:
    """Why the model of a config.json can't continue a text, or None if it can.

    It can if transformers has a causal language model for its type and its `architectures` name no
    class of transformers with another head, as a classifier.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return "has no model_type in its config.json. Give the folder that save_pretrained wrote."
    if config.get("is_encoder_decoder"):
        return f"is an encoder-decoder ({model_type}), which continues no text. {_ADVICE}"
    if model_type not in _tables()[_CAUSAL]:
        return (
            f"is of type {model_type!r}, for which transformers {version('transformers')} has no "
            f"causal language model. {_ADVICE}"
        )
    if model_type in _tables()[_MASKED] and not config.get("is_decoder"):
        return f"attends in both directions ({model_type} without is_decoder). {_ADVICE}"
    other = [str(name) for name in config.get("architectures") or () if _has_another_head(name)]
    return f"is saved as {', '.join(other)}, which generates no text. {_ADVICE}" if other else None


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether transformers has a causal language model for this type, without code of its own."""
    return config.get("model_type") in _tables()[_CAUSAL]


def is_tokenizer(name: object) -> bool:
    """Whether a `tokenizer_class` is one of transformers."""
    return str(name).removesuffix("Fast") in _tokenizers()


def _has_another_head(name: object) -> bool:
    """Whether a class of transformers is neither a causal language model nor a model's body."""
    tables = _tables()
    named = [table for table, rows in tables.items() if name in rows.values()]
    return bool(named) and not {_CAUSAL, _BASE} & set(named)


@functools.cache
def _tables() -> Mapping[str, Mapping[str, str]]:
    """Each table of auto classes: the name of the class by the model's type."""
    text = _source("modeling_auto.py")
    return {name: dict(_ROW.findall(rows)) for name, rows in _TABLE.findall(text)}


@functools.cache
def _tokenizers() -> frozenset[str]:
    names = re.findall(r'"(\w+)"', _source("tokenization_auto.py"))
    return frozenset(name.removesuffix("Fast") for name in names)


def _source(file: str) -> str:
    found = importlib.util.find_spec("transformers")
    assert found is not None and found.origin is not None
    return (Path(found.origin).parent / "models" / "auto" / file).read_text(encoding="utf-8")
