"""What is wrong with the data as one model's tokenizer reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.data.encoding import encode
from trainables.data.token_lengths import (
    SplitLengths,
    TokenLengths,
    length_fault,
    sequence_limit,
    split_of,
)
from trainables.errors import InputError, first_line
from trainables.models.tokenizer import outside
from trainables.preflight.findings import Findings
from trainables.preflight.model_faults import CheckedModel
from trainables.spec.knobs import task_values
from trainables.spec.rows.chat_formats import chat_format_of
from trainables.spec.rows.shot_knobs import refused_shots
from trainables.spec.trial_spec import TrialSpec
from trainables.tasks.task import SPLITS, Example, Task

_SHOWN = 5  # examples that raise


@dataclass
class DataCheck:
    """Tokenizes every example of every split for one model, and adds what it finds to `found`."""

    model: CheckedModel
    lengths: TokenLengths
    found: Findings
    say: Callable[[str], None]
    _refused: set[str] = field(default_factory=set)

    def check(self, spec: TrialSpec) -> None:
        """Checks the data as the spec writes them at its sequence_length.

        Those that were refused at a shorter one are not tokenized again: the message says which
        sequence_length would do.
        """
        key = written_by(spec)
        if key in self._refused:
            return
        faults = list(self._faults(spec))
        if faults:
            self._refused.add(key)
            self.found.faults += faults

    def _faults(self, spec: TrialSpec) -> Iterator[str]:
        limit = sequence_limit(spec, positions=self.model.positions)
        splits: dict[str, SplitLengths] = {}
        for name in SPLITS:
            self.say(f"{self.model.name}, the {name} split at {limit} tokens")
            try:
                splits[name] = self.lengths.split(spec, name, positions=self.model.positions)
            except InputError as error:
                yield from error.messages
            except Exception as error:  # noqa: BLE001  # foreign templates and tasks raise anything
                yield self._raising(spec, name, limit, error)
        fault = length_fault(spec, splits, limit)
        yield from [] if fault is None else [fault]
        for name, lengths in splits.items():
            yield from self._outside(name, lengths)
        self.found.notes += [] if fault else _notes(self.model.name, splits, limit)

    def _outside(self, split: str, lengths: SplitLengths) -> Iterator[str]:
        embedded = self.model.embedded
        if embedded is not None and lengths.largest_token >= embedded:
            token = outside(self.model.tokenizer, lengths.largest_token, embedded=embedded)
            yield (
                f"model: a token of the {split} split, {token}: {self.model.name} and its "
                "tokenizer or chat template do not belong together. Give the tokenizer that the "
                "model was trained with, or resize its embeddings."
            )

    def _raising(self, spec: TrialSpec, split: str, limit: int, error: Exception) -> str:
        """Which examples make the task, the template or the tokenizer raise."""
        task, examples = split_of(spec, split)
        written = {"sequence_length": limit, "chat_format": chat_format_of(spec.knobs)}
        raising = {
            example.id: reason
            for example in examples
            if (reason := _reason(task, example, self.model, written)) is not None
        }
        if not raising:
            return f"{spec.task}: the {split} split can't be tokenized: {first_line(error)}"
        shown = "; ".join(f"{name}: {reason}" for name, reason in [*raising.items()][:_SHOWN])
        more = f"; and {len(raising) - _SHOWN} more" if len(raising) > _SHOWN else ""
        return (
            f"{spec.task}: {len(raising)} of the {len(examples)} examples of the {split} split "
            f"can't be written as prompts for {self.model.name}: {shown}{more}. Mend these "
            "records, or the model's chat template if it is what raises."
        )


def written_by(spec: TrialSpec) -> str:
    """Equal for specs that write the data alike, as far as it can be refused at some length."""
    read = task_values(spec.knobs), chat_format_of(spec.knobs), refused_shots(spec.knobs)
    return repr(read)


def _reason(
    task: Task, example: Example, model: CheckedModel, written: Mapping[str, Any]
) -> str | None:
    try:
        encode(task, [example], model.tokenizer, **written)
    except Exception as error:  # noqa: BLE001  # as above
        return first_line(error)
    return None


def _notes(model: str, splits: Mapping[str, SplitLengths], limit: int) -> Iterator[str]:
    dropped = _counts(splits, {name: len(split.too_long) for name, split in splits.items()})
    cut = _counts(splits, {name: split.prompts_cut for name, split in splits.items()})
    if dropped:
        yield (
            f"data.too_long: drop: examples that do not fit {model} at {limit} tokens: {dropped}. "
            "They are left out of training, and not answered in evaluations."
        )
    if cut:
        yield f"Prompts that lose part of their context, {model} at {limit} tokens: {cut}."


def _counts(splits: Mapping[str, SplitLengths], counts: Mapping[str, int]) -> str:
    told = [f"{count} of {len(splits[name])} of {name}" for name, count in counts.items() if count]
    return ", ".join(told)
