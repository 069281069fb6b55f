"""The beginning that all prompts of a split share, as instructions and shots are."""

from __future__ import annotations

from collections.abc import Sequence

_LEFT = 2  # tokens that each prompt has after it, at least
_WORTH = 0.25  # of the tokens of an average prompt; a shorter beginning saves too little


def shared_beginning(prompts: Sequence[tuple[int, ...]]) -> int:
    """With how many tokens all prompts begin; 0 if computing these once saves little.

    Prompts without tokens, which are not asked, are left out.
    """
    asked = [prompt for prompt in prompts if prompt]
    if len(asked) < 2:
        return 0
    first, last = min(asked), max(asked)  # in the order of an alphabet all others lie between them
    most = min(map(len, asked)) - _LEFT
    pairs = zip(first, last, strict=False)
    length = next((at for at, (one, other) in enumerate(pairs) if one != other), most)
    average = sum(map(len, asked)) / len(asked)
    return min(length, most) if min(length, most) >= _WORTH * average else 0
