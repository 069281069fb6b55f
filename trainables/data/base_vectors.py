"""Vectors of texts by the hidden states of a base, by which shots are chosen."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainables.data.batches import length_sorted
from trainables.data.shots import TextVectors
from trainables.models.base import Base

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS = 16  # texts in a batch
_MOST_TOKENS = 1024  # of a text; the rest of it does not count


def base_vectors(
    base: Base, texts: Iterable[str], known: MutableMapping[str, NDArray[Any]]
) -> TextVectors:
    """Of these texts: the mean of the base's last hidden states over a text's tokens.

    The base is used as it is loaded, quantized or not, with no adapter. `known` has the vectors of
    this base that were computed before, and gets the new ones; what is returned keeps no base.
    """
    import numpy

    wanted = dict.fromkeys(texts)
    missing = [text for text in wanted if text not in known]
    known.update(zip(missing, _computed(base, missing), strict=True))
    own = {text: known[text] for text in wanted}
    return lambda asked: numpy.stack([own[text] for text in asked])


def _computed(base: Base, texts: Sequence[str]) -> list[NDArray[Any]]:
    limit = min(_MOST_TOKENS, base.longest_sequence or _MOST_TOKENS)
    tokens = [base.tokenizer(text).input_ids[:limit] or [base.pad_token] for text in texts]
    found: dict[int, NDArray[Any]] = {}
    mixed = base.compute_dtype != torch.float32
    autocast = torch.autocast(base.device.type, dtype=base.compute_dtype, enabled=mixed)
    with torch.no_grad(), autocast:
        for batch in length_sorted(list(map(len, tokens)), batch_size=_ROWS):
            found |= zip(batch, _means(base, [tokens[at] for at in batch]), strict=True)
    return [found[at] for at in range(len(texts))]


def _means(base: Base, rows: Sequence[Sequence[int]]) -> NDArray[Any]:
    """The unit vectors of a batch, (rows, width), padded on the right."""
    length = max(map(len, rows))
    ids = [[*row, *[base.pad_token] * (length - len(row))] for row in rows]
    mask = torch.tensor(
        [[1] * len(row) + [0] * (length - len(row)) for row in rows], device=base.device
    )
    body = base.model.base_model  # without the head
    states = body(input_ids=torch.tensor(ids, device=base.device), attention_mask=mask)
    hidden = states.last_hidden_state.float() * mask[..., None]
    means = hidden.sum(1) / mask.sum(1, keepdim=True)
    vectors: NDArray[Any] = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
    return vectors
