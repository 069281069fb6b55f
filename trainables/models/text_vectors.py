"""Vectors of texts: the mean hidden states of a model in a local folder.

    python -m trainables.models.text_vectors FOLDER TEXTS.json VECTORS.npy

A process of its own, so that whoever needs vectors imports no torch and holds no device's memory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import AutoModel

from trainables.models.base import quiet
from trainables.models.device import default_device
from trainables.models.tokenizer import load_tokenizer

MOST_TOKENS = 512  # of a text, or the model's positions if they are fewer; its end is cut
_BATCH_TOKENS = 8192  # with their padding


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="an absolute folder with a model and its tokenizer")
    parser.add_argument("texts", type=Path, help="a JSON list of texts")
    parser.add_argument("vectors", type=Path, help="is written: a row for each text")
    given = parser.parse_args(arguments)
    quiet()
    texts = json.loads(given.texts.read_text(encoding="utf-8"))
    numpy.save(given.vectors, on_some_device(given.folder, texts))


def on_some_device(folder: str, texts: Sequence[str]) -> Any:
    """The vectors, from `default_device()`, or from the CPU if the device has no room."""
    try:
        return text_vectors(folder, texts, device=default_device())
    except torch.OutOfMemoryError:
        return text_vectors(folder, texts, device="cpu")


@torch.inference_mode()
def text_vectors(folder: str, texts: Sequence[str], *, device: str = "cpu") -> Any:
    """An array (texts, hidden size) of float32: the last hidden states of each text, their mean
    over its tokens, scaled to length 1; of a text without tokens zeros.

    The model is any of transformers, of an encoder-decoder the encoder. Code of its own is never
    run, and its weights are safetensors.
    """
    tokenizer = load_tokenizer(folder, offline=True)
    model = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
    )
    model = (model.get_encoder() if model.config.is_encoder_decoder else model).to(device).eval()
    limit = min(MOST_TOKENS, getattr(model.config, "max_position_embeddings", 0) or MOST_TOKENS)
    tokens = [tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in texts]
    vectors = numpy.zeros((len(texts), model.config.hidden_size), dtype=numpy.float32)
    for batch in _batches(list(map(len, tokens))):
        vectors[batch] = _means(model, [tokens[at] for at in batch], device).cpu().numpy()
    return vectors


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of what has tokens, with equal lengths beside each other."""
    order = sorted((at for at, length in enumerate(lengths) if length), key=lengths.__getitem__)
    batch: list[int] = []
    for at in order:
        if batch and (len(batch) + 1) * lengths[at] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _means(model: Any, rows: Sequence[Sequence[int]], device: str) -> torch.Tensor:
    longest = max(map(len, rows))
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows], device=device)
    states = model(input_ids=padded, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).to(states.dtype)
    return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


if __name__ == "__main__":
    main()
