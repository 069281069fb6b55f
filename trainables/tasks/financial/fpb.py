"""Financial PhraseBank: the sentiment of sentences of financial news (Malo et al., 2014).

A folder has the release's files, Sentences_50Agree.txt to Sentences_AllAgree.txt, perhaps gzipped:
latin-1, one `sentence@label` a line. The splits are those that Shah et al. (2023) publish of the
sentences on which all annotators agree, scikit-learn's train_test_split(test_size=0.2,
random_state=seed), and by the same rule those of the other levels.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trainables.errors import InputError
from trainables.spec.checks import Check
from trainables.tasks.financial.labelled import LabelledSentences
from trainables.tasks.own_data.rows import Row, shortened
from trainables.tasks.source import Source

Labelled = list[tuple[str, str, Row]]
FILES = {
    "50": "Sentences_50Agree.txt",
    "66": "Sentences_66Agree.txt",
    "75": "Sentences_75Agree.txt",
    "all": "Sentences_AllAgree.txt",
}
_PROMPT = """A sentence of financial news:
{input}
Is it positive, negative or neutral for the company's investors? Answer with one word.
Answer:"""


def _level(value: Any) -> str | None:
    if str(value) in FILES:
        return None
    return f"got {value!r}; needs one of {', '.join(FILES)}, the agreement of the annotators."


def _of_option(name: str) -> Check:
    return lambda value: f"data.{name}: {fault}" if (fault := _level(value)) else None


@dataclass(frozen=True)
class FPB(LabelledSentences):
    """`agreement` is the level of training; `judged_on` that of selection and report, if another:
    then no sentence of that level's test split is trained on."""

    name: ClassVar[str] = "fpb"
    source: ClassVar[Source | None] = Source(
        base_url="https://raw.githubusercontent.com/gtfintechlab/zero-shot-finance/"
        "d8a6aad6db29eb7f85f73a50d1dc06d08b77bc91/sentiment_analysis/data/"
        "ExtractedFinancialPhraseBank/",
        blobs={
            "Sentences_50Agree.txt": "0eaa073032279e6f97f5f8d252f4653770d38760",
            "Sentences_66Agree.txt": "4379e4d7918abffc1d27affb008ddfe0b21a91dc",
            "Sentences_75Agree.txt": "fca15176895feb85849e43baf7769d07dc3c0654",
            "Sentences_AllAgree.txt": "729405e8c8b79e30a86c32ef3d5b97b63cfb6863",
        },
        option="folder",
    )
    prompts: ClassVar[Mapping[str, str]] = {"default": _PROMPT}
    usual_labels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "positive": ("positive",),
        "negative": ("negative",),
        "neutral": ("neutral",),
    }
    more_options: ClassVar[Mapping[str, Check]] = {
        **LabelledSentences.more_options,
        "agreement": _of_option("agreement"),
        "judged_on": _of_option("judged_on"),
    }

    def published(self) -> tuple[Labelled, Labelled]:
        level = str(self.more.get("agreement", "all"))
        judged = str(self.more.get("judged_on", level))
        train, test = self._halves(level)
        if judged != level:
            every, (_, test) = train + test, self._halves(judged)
            tested = {sentence for sentence, _, _ in test}
            train = [each for each in every if each[0] not in tested]
        return train, test

    def facts(self, split: str) -> dict[str, str | int]:
        level = str(self.more.get("agreement", "all"))
        return {**super().facts(split), "agreement": level}

    def _halves(self, level: str) -> tuple[Labelled, Labelled]:
        from sklearn.model_selection import train_test_split

        rows = read_sentences(self.folder, level)
        train, test = train_test_split(range(len(rows)), test_size=0.2, random_state=self.seed)
        return [rows[at] for at in train], [rows[at] for at in test]


def read_sentences(folder: Path, level: str) -> Labelled:
    """The sentences of one level of agreement, in the file's order.

    Raises InputError for a file that is missing, or with the lines that have no label.
    """
    name = FILES[level]
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if not found:
        raise InputError(f"{folder / name}: no such file, nor with .gz.")
    content = found[0].read_bytes()
    text = (gzip.decompress(content) if found[0].suffix == ".gz" else content).decode("latin-1")
    rows: Labelled = []
    faults = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        sentence, separator, label = line.rpartition("@")
        if not line.strip():
            continue
        if not separator or not sentence.strip() or label.strip() not in FPB.usual_labels:
            faults.append(f"{found[0]}:{number}: no sentence@label: {line[:60]!r}.")
            continue
        values = {"sentence": sentence.strip(), "label": label.strip()}
        rows.append((values["sentence"], values["label"], Row(values, f"{found[0]}:{number}")))
    if faults:
        raise InputError(shortened(faults))
    return rows
