"""numbers, sizes and times as people read them."""

from __future__ import annotations


def in_words(amount: float) -> str:
    """Bytes as people say them: 39.6 GiB."""
    for name in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {name}" if amount < 100 else f"{amount:.0f} {name}"
        amount /= 1024
    return f"{amount:.1f} GiB"
