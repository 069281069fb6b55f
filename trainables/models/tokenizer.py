"""The tokenizer of a base: loads it, and finds tokens that its model can't embed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainables.errors import InputError, first_line

_PIECES = ("tokenizer.model", "spiece.model")  # files of the package sentencepiece
_WHOLE = "tokenizer.json"


def load_tokenizer(source: str, *, revision: str | None = None, offline: bool = False) -> Any:
    """The tokenizer in a folder or of a model of the hub; code of its own is never run.

    Raises InputError if the tokenizer's files can't be used, OSError if a model of the hub is not
    available; `offline`: it is only looked for in the hub's cache.
    """
    from transformers import AutoTokenizer

    is_folder = Path(source).is_absolute()
    try:
        return AutoTokenizer.from_pretrained(
            source, revision=revision, local_files_only=offline, trust_remote_code=False
        )
    except Exception as error:  # foreign files: libraries raise anything, also Exception
        if isinstance(error, OSError) and not is_folder:
            raise
        raise InputError(f"model: {source} {_unusable(Path(source), error)}") from error


def pad_token_of(tokenizer: Any, name: str) -> int:
    """The token that pads batches: the end token if there is no padding token.

    Raises InputError if there is neither.
    """
    token = tokenizer.pad_token_id
    token = tokenizer.eos_token_id if token is None else token
    if token is None:
        raise InputError(
            f"model: the tokenizer of {name} has neither a padding nor an end token, so examples "
            "can't be batched. Set pad_token in its tokenizer_config.json."
        )
    return int(token)


def pad_token_fault(tokenizer: Any, name: str, *, embedded: int) -> str | None:
    """Why batches can't be padded for a model that embeds so many tokens, or None."""
    try:
        token = pad_token_of(tokenizer, name)
    except InputError as error:
        return error.messages[0]
    if token < embedded:
        return None
    return (
        f"model: the padding token of {name}, {outside(tokenizer, token, embedded=embedded)}. Set "
        f"pad_token in its tokenizer_config.json to a token that the model has"
        f"{_end_token(tokenizer, embedded)}."
    )


def outside(tokenizer: Any, token: int, *, embedded: int) -> str:
    """Names a token that is outside the embeddings, and says so."""
    return (
        f"{tokenizer.convert_ids_to_tokens(token)!r}, has the id {token}, and the model has "
        f"embeddings for the ids below {embedded} only"
    )


def _end_token(tokenizer: Any, embedded: int) -> str:
    end = tokenizer.eos_token_id
    return "" if end is None or end >= embedded else f", as its end token {tokenizer.eos_token!r}"


def _unusable(folder: Path, error: Exception) -> str:
    pieces = [name for name in _PIECES if (folder / name).exists()]
    if pieces and not (folder / _WHOLE).exists() and find_spec("sentencepiece") is None:
        return (
            f"has its tokenizer only as {pieces[0]}, which the package sentencepiece reads, and "
            "that is not installed here. Install sentencepiece wherever trials run, or save the "
            f"tokenizer once where it is installed, which writes {_WHOLE}."
        )
    return f"has a tokenizer that can't be loaded: {first_line(error)}"
