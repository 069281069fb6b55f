"""Answers of several models to some questions of a split, as a sweep would have asked them.

`python -m trainables.evaluation.answering` answers one request, a JSON object on its standard
input, for a driver that imports no torch.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trainables.data.encoding import Encoded, encode
from trainables.data.trial_data import TrialData, load_data
from trainables.errors import InputError, first_line
from trainables.evaluation.evaluate import answer
from trainables.methods.registry import make_method
from trainables.models.base import Base, load_base, quiet, warm_imports
from trainables.models.device import default_device, resolve_compute_dtype
from trainables.models.model_folder import check_model
from trainables.resources.out_of_memory import free_memory
from trainables.spec.trial_spec import Execution, TrialSpec

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """A model that is asked: its base and its prompt by `spec`, and what was trained on the base.

    `trained`: the folder of an adapter or a whole model, None: the base itself. `threads`: how
    many it computes with on a CPU, None: as many as torch takes. `label` is for progress.
    `is_of_a_sweep`: a sweep has judged it, so that it should answer as it did there, with so many
    questions at once (`eval_batch`, None: as its spec says).
    """

    spec: TrialSpec
    trained: Path | None
    label: str
    threads: int | None = None
    is_of_a_sweep: bool = False
    eval_batch: int | None = None

    @property
    def execution(self) -> Execution:
        own = self.spec.execution
        return replace(own, eval_batch_size=self.eval_batch or own.eval_batch_size)


@dataclass(frozen=True)
class Answers:
    """What one model was asked and answered; entry i of each field is question i's.

    `prompts` is what the model read, its template's marks included; `cut`: it had to be shortened.
    `rows` are as in a trial's predictions.
    """

    prompts: tuple[str, ...]
    cut: tuple[bool, ...]
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class _Questions:
    split: str
    places: tuple[int, ...]
    as_a_sweep: bool


def answers(
    models: Sequence[Asked], *, split: str, questions: Sequence[int], notify: Say = print
) -> Iterator[tuple[int, Answers]]:
    """The index of each model with its answers; those on one base follow each other.

    A base is loaded once, whatever was trained on it. Where a sweep has judged one, the questions
    are asked in the batches of a sweep's evaluation, else by themselves.

    Raises InputError where a model, its data or its prompt are not as its spec says, and what
    torch does where one doesn't fit the device.
    """
    device = default_device()
    resolved = [replace(each, spec=_resolved(each.spec, device)) for each in models]
    asked = _Questions(split, tuple(questions), any(each.is_of_a_sweep for each in models))
    cache: dict[Any, Any] = {}
    for key in dict.fromkeys(each.spec.base_key for each in resolved):
        on_it = [at for at, each in enumerate(resolved) if each.spec.base_key == key]
        notify(f"loading {_base_name(resolved[on_it[0]].spec)}")
        base = _load(resolved[on_it[0]].spec, device)
        for at in on_it:
            notify(f"asking {resolved[at].label}")
            data = load_data(resolved[at].spec, base, cache)
            yield at, _answers(resolved[at], base, data, asked, notify=notify)
        del base
        free_memory()


def main() -> int:
    """Reads a line {"models": [{the fields of Asked}], "split", "questions"}.

    Writes a JSON object a line: {"say"} as it goes on, {"model", "prompts", "cut", "rows"} for
    each model, and {"errors"} (what the user can mend) or {"failed"} if it ends before. Ends with
    its standard input, and so with who asks.
    """
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        warm_imports()
        for line in _lines(request):
            print(json.dumps(line), file=out, flush=True)
    return 0


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin's own: its lock would outlive us
        pass
    os._exit(1)


def _lines(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    try:
        found = answers(
            [_asked(each) for each in request["models"]],
            split=request["split"],
            questions=request["questions"],
            notify=_teller(),
        )
        for at, given in found:
            yield {"model": at, "prompts": given.prompts, "cut": given.cut, "rows": given.rows}
    except InputError as error:
        told.append({"errors": list(error.messages)})
    except Exception as error:  # noqa: BLE001  # a boundary: the driver says what it was
        told.append({"failed": first_line(error)})
    yield from told


def _teller() -> Say:
    """Progress goes out at once, past the answers that are still to come."""
    out = sys.__stdout__

    def notify(text: str) -> None:
        print(json.dumps({"say": text}), file=out, flush=True)

    return notify


def _asked(given: Mapping[str, Any]) -> Asked:
    trained = given["trained"]
    return Asked(
        spec=TrialSpec.from_json(given["spec"]),
        trained=None if trained is None else Path(trained),
        label=given["label"],
        threads=given["threads"],
        is_of_a_sweep=given["is_of_a_sweep"],
        eval_batch=given["eval_batch"],
    )


def _resolved(spec: TrialSpec, device: str) -> TrialSpec:
    dtype = resolve_compute_dtype(spec.knobs["compute_dtype"], device)
    return replace(spec, knobs={**spec.knobs, "compute_dtype": dtype})


def _load(spec: TrialSpec, device: str) -> Base:
    quiet()
    check_model(spec)
    try:
        return load_base(spec, device=device)
    except OSError as error:  # transformers says so of what it can't find
        raise InputError(
            f"model: {spec.model_source} can't be loaded: {first_line(error)}"
        ) from error


def _answers(
    asked: Asked, base: Base, data: TrialData, questions: _Questions, *, notify: Say
) -> Answers:
    encoded, places = _encoded(data, base, questions)
    method = make_method(asked.spec.knobs)
    model = base.model if asked.trained is None else method.load(base.model, asked.trained)
    try:
        with _threads(asked.threads):
            rows = answer(
                model,
                base,
                task=data.task,
                encoded=encoded,
                asked=places,
                execution=asked.execution,
                after_batch=_counter(notify, asked.label),
            )
    finally:
        if asked.trained is not None:
            method.detach(model)
    texts = base.tokenizer.batch_decode([encoded.prompts[at] for at in places])
    cut = tuple(encoded.cut[at] for at in places)
    return Answers(prompts=tuple(texts), cut=cut, rows=tuple(rows))


def _encoded(data: TrialData, base: Base, questions: _Questions) -> tuple[Encoded, Sequence[int]]:
    """The questions, and where they are in it; alone they need the rest of the split not be read
    by the tokenizer."""
    if questions.as_a_sweep:
        return data.split(questions.split), questions.places
    examples = data.task.load(questions.split)
    chosen = [examples[at] for at in questions.places]
    limit = data.sequence_limit
    encoded = encode(data.task, chosen, base.tokenizer, sequence_length=limit)
    return encoded, range(len(chosen))


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """A sum over other threads may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _counter(notify: Say, label: str) -> Callable[[], None]:
    counts = itertools.count(1)

    def after_batch() -> None:
        notify(f"asking {label}: {next(counts)} batches answered")

    return after_batch


def _base_name(spec: TrialSpec) -> str:
    name = spec.model_source or str(spec.knobs["model"])
    return f"{Path(name).name} ({spec.knobs['quantization']})"


if __name__ == "__main__":
    sys.exit(main())
