"""The blocks of a model's text decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def decoder_config(config: Any) -> Any:
    """The configuration of a model's text decoder, which is itself in a model of text alone."""
    return config.get_text_config(decoder=True)


def blocks_of(model: Any) -> nn.ModuleList:
    """The blocks of a model's text decoder; empty if there is no list of them."""
    from torch import nn

    depth = decoder_config(model.config).num_hidden_layers
    modules = model.get_decoder().modules()
    lists = (m for m in modules if isinstance(m, nn.ModuleList) and len(m) == depth)
    return next(lists, nn.ModuleList())
