"""The bases' tokenizer: one token for each word and each number of the generator.

The vocabulary is enumerated, not trained. Any text is decoded unchanged: words outside the
vocabulary are split into characters, and characters outside it into bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trainables.tasks.finqa import synthetic
from trainables.tasks.prompts.page_layout import table_statements

SPECIAL = ("<pad>", "<s>", "</s>")
SMALLEST_NUMBER, LARGEST_NUMBER = -100, 100
_CHUNK = r"\n| ?-?[0-9]+(?:\.[0-9]+)?| ?[A-Za-z]+| ?[^\sA-Za-z0-9]|\s"


def build() -> PreTrainedTokenizerFast:
    """Builds the tokenizer; it adds no special tokens, and decodes any encoded text unchanged."""
    pieces = vocabulary()
    scores = [(piece, -5.0 if len(piece) == 1 else -1.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_CHUNK), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token="\n",  # an answer ends with its line; "</s>" does not occur in pre-training
        clean_up_tokenization_spaces=False,
    )


def vocabulary() -> list[str]:
    """The tokens in the order of their ids."""
    printable = [chr(code) for code in range(33, 127)]
    spaced = [f" {sign}" for sign in printable if not sign.isalnum()]
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    numbers = [f" {n}" for n in range(SMALLEST_NUMBER, LARGEST_NUMBER + 1)]
    pieces = [*SPECIAL, *byte_pieces, "\n", " ", *printable, *spaced, *numbers]
    return list(dict.fromkeys([*pieces, *sorted(_fractions()), *sorted(_words())]))


def _fractions() -> Iterator[str]:
    for old in synthetic.ROUND_CELLS:
        for new in range(synthetic.SMALLEST_CELL, synthetic.LARGEST_CELL + 1):
            yield f" {round((new - old) / old, 5):g}"


def _words() -> Iterator[str]:
    """The generator's words with a leading space, and without one for words that start a line."""
    texts = [f"Question: {make('revenue', 1, 10).text}" for make in synthetic.KINDS.values()]
    for audited in (True, False):
        page = synthetic.Page("", ("revenue",), synthetic.YEARS[0], ((1, 10),), audited)
        texts += [*page.pre_text, *page.post_text, table_statements(page.table)]
    for text in [*texts, "Answer: yes", "Answer: no"]:
        yield from re.findall(r" ?[A-Za-z]+", text)
    yield from (f" {word}" for word in (*synthetic.ITEMS, *map(str, synthetic.YEARS)))
    yield f" {synthetic.YEARS[0] - 1}"
    for syllable in synthetic.SYLLABLES:
        yield from (syllable, f" {syllable}")
