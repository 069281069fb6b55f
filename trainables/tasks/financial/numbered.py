"""NumberedLabels: published splits in a file each, with labels as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainables.errors import InputError
from trainables.tasks.financial.folder import find_file
from trainables.tasks.financial.labelled import LabelledSentences
from trainables.tasks.own_data.rows import Row, read_rows, shortened
from trainables.tasks.own_data.values import text_of

Labelled = list[tuple[str, str, Row]]


@dataclass(frozen=True)
class NumberedLabels(LabelledSentences):
    """The files are ...train-SEED and ...test-SEED in any format; the label n is the n-th of
    `usual_labels`, from 0."""

    sentence_column: ClassVar[str]

    def published(self) -> tuple[Labelled, Labelled]:
        return self._labelled("train"), self._labelled("test")

    def _labelled(self, part: str) -> Labelled:
        file = find_file(self.folder, f"{part}-{self.seed}")
        rows = read_rows(file, columns=(self.sentence_column, "label"))
        names = list(self.usual_labels)
        known = {str(number): name for number, name in enumerate(names)}
        faults = [
            f"{row.place}: the label {row.values['label']!r} is none of {', '.join(known)}."
            for row in rows
            if text_of(row.values["label"]) not in known
        ]
        if faults:
            raise InputError(shortened(faults))
        return [
            (
                text_of(row.values[self.sentence_column]).strip(),
                known[text_of(row.values["label"])],
                row,
            )
            for row in rows
        ]
