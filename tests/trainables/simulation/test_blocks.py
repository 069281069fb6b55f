"""Blocks: their kinds, and from where on these repeat."""

from __future__ import annotations

import pytest

from benchmarks.architectures import ARCHITECTURES
from trainables.methods.blocks import decoder_config
from trainables.simulation.blocks import Pattern, block_kinds, pattern_of, shortened
from trainables.simulation.depth import model_config


@pytest.mark.parametrize(
    ("kinds", "pattern"),
    [
        ("aaaaaaaa", Pattern(lead=0, period=1)),
        ("abbbbbbb", Pattern(lead=1, period=1)),
        ("abababab", Pattern(lead=0, period=2)),
        ("abababa", Pattern(lead=0, period=2)),
        ("caaabaaabaaab", Pattern(lead=1, period=4)),
        ("aaaaabaaaaabaa", Pattern(lead=0, period=6)),
        ("aaabbbbbbbb", Pattern(lead=3, period=1)),
    ],
)
def test_it_is_the_shortest_pattern_that_holds_to_the_end(kinds: str, pattern: Pattern) -> None:
    assert pattern_of(kinds) == pattern


@pytest.mark.parametrize("kinds", ["abcd", "aabacba", "abbbbc"])
def test_kinds_that_do_not_repeat_to_the_end_need_more_blocks_than_there_are(kinds: str) -> None:
    assert pattern_of(kinds).shortest > len(kinds)


@pytest.mark.parametrize(
    ("architecture", "depth", "places"),
    [
        ("gemma2", 4, "abab"),
        ("gemma3", 7, "aaaaaba"),
        ("gemma3 with images", 6, "aaaaab"),
        ("falcon", 4, "aaaa"),
        ("mixtral", 4, "aaaa"),
        ("deepseek", 5, "abbbb"),
    ],
)
def test_kinds_are_found_in_the_model_itself(architecture: str, depth: int, places: str) -> None:
    config = model_config(ARCHITECTURES[architecture])
    kinds = block_kinds(config)
    assert len(kinds) == depth
    names = {kind: "ab"[place] for place, kind in enumerate(dict.fromkeys(kinds))}
    assert "".join(names[kind] for kind in kinds) == places
    assert block_kinds(shortened(config, depth - 1)) == kinds[:-1]


def test_a_shortened_model_keeps_what_is_not_of_its_blocks() -> None:
    config = model_config(ARCHITECTURES["gemma3 with images"])
    short = shortened(config, 3)
    assert decoder_config(short).num_hidden_layers == len(decoder_config(short).layer_types) == 3
    assert short.vision_config.num_hidden_layers == config.vision_config.num_hidden_layers == 2
    assert decoder_config(config).num_hidden_layers == 6
