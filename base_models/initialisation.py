"""Structured initial weights of the bases: their heads attend to the right tokens before training.

From random weights, models this small copy some cell within minutes and choose the right one after
hours. With a structured initialisation, as in mimetic initialisation (Trockman and Kolter, 2023,
arXiv:2305.09828), they choose it within minutes. It sets:

- embeddings: random, of one norm, with a constant coordinate, one that flags numbers, and, for
  numbers, waves of twelve periods, so that sums and differences are products of waves;
- layer 1: each head attends a fixed distance back and writes the token found there into its own
  subspace, which gives a cell the name of its row, and the end of the prompt its line item;
- layer 2: two heads match these and so find the later and the earlier cell of the row in question;
  each copies the waves of the cell into its own subspace, and the feed-forward units multiply a
  wave of the one by a wave of the other.

Training learns which question asks for which cell or operation, and every answer.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from base_models.tokenizer import LARGEST_NUMBER, SMALLEST_NUMBER

HEAD_SIZE = 32
ROPE_THETA = 1e7  # the slow half of a head's frequencies hardly rotates within a prompt
_CONSTANT, _IS_NUMBER, _WAVES = 0, 1, 2  # coordinates of the hidden state; waves begin at the third
_PERIODS = (3, 4, 5, 7, 10, 13, 20, 33, 50, 100, 200, 400)
_LENGTH = 1.25  # norm of an embedding
_LATER, _EARLIER = 2, 4  # distance in tokens from a cell back to the name of its row
_ITEM = 4  # distance in tokens from the last ":" of the prompt back to the line item
_DISTANCES = (_LATER, _EARLIER, 6, 7)
_FAST = (3.0, 2.0, 1.0, 0.5, 0.3, 0.2)  # weights of the fast frequencies, which encode distances
_SLOW = tuple(range(6, HEAD_SIZE // 2 - 1))  # pairs of a head that compare content
_FLAG = HEAD_SIZE // 2 - 1  # the slowest pair separates numbers from words
_WRITE = 2.5  # scale of a head's output, in units of an embedding's coordinate


@torch.no_grad()
def initialise(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Overwrites the embeddings and the first two layers of `model`, using torch's random state.

    The model must have four heads of `HEAD_SIZE`, a rotary base of `ROPE_THETA` and at least 2
    layers.
    """
    layers = model.model.layers
    width = model.config.hidden_size
    _embeddings(model.model.embed_tokens.weight, tokenizer)
    written = _look_back(layers[0].self_attn, width)
    found = _match(layers[1].self_attn, written)
    _multiply(layers[1].mlp, found)


def _embeddings(weight: Tensor, tokenizer: PreTrainedTokenizerFast) -> None:
    """Sets the embedding matrix; weight: (vocabulary, width)."""
    unit = _unit(weight.shape[1])
    numbers = range(SMALLEST_NUMBER, LARGEST_NUMBER + 1)
    ids = cast("list[int]", tokenizer.convert_tokens_to_ids([f" {number}" for number in numbers]))
    weight.normal_(0.0, unit)
    angles = torch.tensor([[2 * math.pi * n / period for period in _PERIODS] for n in numbers])
    waves = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)
    weight[ids, _WAVES : _WAVES + waves.shape[1]] = 1.3 * unit * waves
    weight[:, _WAVES:] *= _LENGTH / weight[:, _WAVES:].norm(dim=1, keepdim=True)
    weight[ids, _WAVES:] *= math.sqrt(1 - (2 * unit / _LENGTH) ** 2)
    weight[:, _CONSTANT] = 2 * unit
    weight[:, _IS_NUMBER] = 0.0
    weight[ids, _IS_NUMBER] = 2 * unit


def _look_back(attention: torch.nn.Module, width: int) -> list[Tensor]:
    """Makes head h attend `_DISTANCES[h]` tokens back.

    Returns the subspace that each head writes to, (width, HEAD_SIZE).
    """
    query, key, value, output = _projections(attention)
    size = min(HEAD_SIZE, width // len(_DISTANCES))
    read, write = _orthonormal(width)[:HEAD_SIZE].clone(), _orthonormal(width)
    read[size:] = 0.0
    read[:, :_WAVES] = 0.0
    write[:_WAVES] = 0.0
    strength = torch.zeros(HEAD_SIZE // 2)
    strength[: len(_FAST)] = 4.0 * torch.tensor(_FAST).sqrt()
    turn = ROPE_THETA ** (-torch.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
    query.normal_(0.0, 0.003)
    key.normal_(0.0, 0.003)
    written = []
    for head, distance in enumerate(_DISTANCES):
        rows = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
        query[rows, _CONSTANT] = torch.cat([strength, torch.zeros_like(strength)])
        cosine, sine = (distance * turn).cos(), (distance * turn).sin()
        key[rows, _CONSTANT] = torch.cat([strength * cosine, strength * sine])
        value[rows] = read
        subspace = torch.zeros(width, HEAD_SIZE)
        subspace[:, :size] = write[:, head * size : (head + 1) * size]
        output[:, rows] = subspace * _unit(width) * _WRITE
        written.append(subspace)
    return written


def _match(attention: torch.nn.Module, written: list[Tensor]) -> list[Tensor]:
    """Makes heads 0 and 1 attend to the later and the earlier cell.

    Returns the subspace that each head writes its waves to.
    """
    query, key, value, output = _projections(attention)
    width = written[0].shape[0]
    slots = [*_SLOW, *(pair + HEAD_SIZE // 2 for pair in _SLOW)]
    compare = torch.zeros(HEAD_SIZE, HEAD_SIZE)
    compare[slots, range(len(slots))] = 3.0
    write = _orthonormal(width)
    write[:_WAVES] = 0.0
    found = []
    for head, distance in enumerate((_LATER, _EARLIER)):
        rows = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
        query[rows] = compare @ written[_DISTANCES.index(_ITEM)].T
        key[rows] = compare @ written[_DISTANCES.index(distance)].T
        query[rows.start + _FLAG, _CONSTANT] = 8.0
        key[rows.start + _FLAG, _IS_NUMBER] = 8.0
        value[rows] = 0.0
        value[range(rows.start, rows.stop), range(_WAVES, _WAVES + HEAD_SIZE)] = 1.0
        output[:, rows] = write[:, rows] * _unit(width) * _WRITE
        found.append(write[:, rows])
    return found


def _multiply(feed_forward: torch.nn.Module, found: list[Tensor]) -> None:
    """Makes units multiply waves of the two numbers: cos(a-b) = cos a cos b + sin a sin b."""
    gate, up, down = (
        getattr(feed_forward, name).weight for name in ("gate_proj", "up_proj", "down_proj")
    )
    gate.normal_(0.0, 0.05)
    up.normal_(0.0, 0.05)
    down.normal_(0.0, 0.02)
    units = 4 * len(_PERIODS)
    for copy in range(min(4, gate.shape[0] // units)):
        sign = 1.0 if copy % 2 == 0 else -1.0  # differences and sums alternate
        for unit in range(units):
            later, earlier = unit % 2, unit // 2 % 2  # 0 the cosine, 1 the sine
            wave = 2 * (unit // 4)
            row = copy * units + unit
            gate[row] += 2.0 * found[0][:, wave + later]
            up[row] += 2.0 * found[1][:, wave + earlier]
            weight = -0.1 * sign if (later, earlier) == (0, 1) else 0.1
            weight *= sign if (later, earlier) == (1, 1) else 1.0
            down[_WAVES + wave + (later + earlier) % 2, row] += weight


def _projections(attention: torch.nn.Module) -> list[Tensor]:
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    return [getattr(attention, name).weight for name in names]


def _orthonormal(size: int) -> Tensor:
    columns: Tensor = torch.linalg.qr(torch.randn(size, size))[0]
    return columns


def _unit(width: int) -> float:
    """The standard deviation of a coordinate of an embedding."""
    return _LENGTH / math.sqrt(width)
