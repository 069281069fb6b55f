"""Answers of several models to some questions of a split, generated as in a sweep's evaluation.

`python -m trainables.evaluation.answering` answers one request, a JSON object on standard input,
for a driver that does not import torch.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from trainables.data.encoding import Encoded, encode
from trainables.data.trial_data import TrialData, check_lengths, load_data
from trainables.errors import InputError, first_line
from trainables.evaluation.evaluate import answer
from trainables.methods.registry import make_method
from trainables.models.base import Base, load_base, quiet, warm_imports
from trainables.models.device import default_device, resolve_compute_dtype
from trainables.models.model_folder import check_model
from trainables.resources.flops import ForwardBackward, Generation, work_to_json
from trainables.resources.out_of_memory import free_memory
from trainables.spec.decoding import Decoding
from trainables.spec.rows.chat_formats import chat_format_of
from trainables.spec.trial_spec import Execution, TrialSpec

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """A requested model: its base and prompt are those of `spec`.

    `trained` is the folder of an adapter or a whole model, or None for the base itself. `threads`
    is the number of CPU threads, None for torch's default. `label` names it in progress messages.
    `is_of_a_sweep` says that a sweep has evaluated it, so that it should answer as it did there, in
    batches of `eval_batch` questions (None: as in its spec).
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
    """The prompts and answers of one model; entry i of the first fields belongs to question i.

    `prompts` include the marks of the chat template; `cut` says which were shortened. `rows` are as
    in a trial's predictions. `seconds` is the time that answering took, without loading, and
    `work` what was computed in it.
    """

    prompts: tuple[str, ...]
    cut: tuple[bool, ...]
    rows: tuple[dict[str, Any], ...]
    seconds: float
    work: tuple[ForwardBackward | Generation, ...]


@dataclass(frozen=True)
class _Questions:
    split: str
    places: tuple[int, ...]
    as_a_sweep: bool


def answers(
    models: Sequence[Asked], *, split: str, questions: Sequence[int], notify: Notify = print
) -> Iterator[tuple[int, Answers]]:
    """Yields the index and the answers of each model, grouped by base.

    Each base is loaded once. If a sweep has evaluated any of the models, the questions are asked in
    the batches of a sweep's evaluation, else by themselves.

    Raises InputError if a model, its data or its prompt differ from its spec, and torch's error if
    one does not fit the device.
    """
    device = default_device()
    resolved = [replace(each, spec=_resolved(each.spec, device)) for each in models]
    asked = _Questions(split, tuple(questions), any(each.is_of_a_sweep for each in models))
    cache: dict[Any, Any] = {}
    for key in dict.fromkeys(each.spec.base_key for each in resolved):
        indices = [at for at, each in enumerate(resolved) if each.spec.base_key == key]
        notify(f"loading {_base_name(resolved[indices[0]].spec)}")
        base = _load(resolved[indices[0]].spec, device)
        for at in indices:
            notify(f"asking {resolved[at].label}")
            data = load_data(resolved[at].spec, base, cache)
            yield at, _answers(resolved[at], base, data, asked, notify=notify)
        del base
        free_memory()


def main() -> int:
    """Reads one line {"models": [{the fields of Asked}], "split", "questions"}.

    Writes one JSON object per line: {"say"} for progress, {"model", "prompts", "cut", "rows",
    "seconds", "work"} for each model, and {"errors"} (which the user can fix) or {"failed"} if it
    ends early. It ends when its standard input is closed, thus with the process that asks.
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
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin.read, which holds a lock at exit
        pass
    os._exit(1)


def _lines(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    failure: list[dict[str, Any]] = []
    try:
        found = answers(
            [_asked(each) for each in request["models"]],
            split=request["split"],
            questions=request["questions"],
            notify=_print_progress,
        )
        for at, of_model in found:
            work = [work_to_json(each) for each in of_model.work]
            yield {**_fields(of_model), "model": at, "work": work}
    except InputError as error:
        failure.append({"errors": list(error.messages)})
    except Exception as error:  # noqa: BLE001  # a boundary: the driver reports it
        failure.append({"failed": first_line(error)})
    yield from failure


def _fields(answers: Answers) -> dict[str, Any]:
    return {field.name: getattr(answers, field.name) for field in fields(answers)}


def _print_progress(text: str) -> None:
    """Writes a message at once, while sys.stdout is redirected."""
    print(json.dumps({"say": text}), file=sys.__stdout__, flush=True)


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
    except OSError as error:  # transformers raises it for a missing file
        raise InputError(
            f"model: {spec.model_source} can't be loaded: {first_line(error)}"
        ) from error


def _answers(
    asked: Asked, base: Base, data: TrialData, questions: _Questions, *, notify: Notify
) -> Answers:
    encoded, places = _encoded(asked.spec, data, base, questions)
    method = make_method(asked.spec.knobs)
    model = base.model if asked.trained is None else method.load(base.model, asked.trained)
    try:
        with _threads(asked.threads):
            started = time.perf_counter()
            rows, work = answer(
                model,
                base,
                task=data.task,
                encoded=encoded,
                asked=places,
                execution=asked.execution,
                decoding=Decoding.of(asked.spec.knobs),
                after_batch=_counter(notify, asked.label),
            )
            seconds = time.perf_counter() - started
    finally:
        if asked.trained is not None:
            method.detach(model)
    texts = base.tokenizer.batch_decode([encoded.prompts[at] for at in places])
    cut = tuple(encoded.cut[at] for at in places)
    return Answers(tuple(texts), cut, tuple(rows), seconds, work)


def _encoded(
    spec: TrialSpec, data: TrialData, base: Base, questions: _Questions
) -> tuple[Encoded, Sequence[int]]:
    """The encoded questions, and their indices in it; without a sweep only they are tokenized.

    The train split of a trial is learned without shots and without what is too long.
    """
    is_apart = questions.split == "train" and (data.shots or data.split("train").too_long)
    if questions.as_a_sweep and not is_apart:
        return data.split(questions.split), questions.places
    examples = data.task.load(questions.split)
    chosen = [examples[at] for at in questions.places]
    limit = data.sequence_limit
    encoded = encode(
        data.task,
        chosen,
        base.tokenizer,
        sequence_length=limit,
        shots=data.shots,
        chat_format=chat_format_of(spec.knobs),
    )
    check_lengths(encoded, spec, split=questions.split, limit=limit)
    return encoded, range(len(chosen))


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Sets the number of CPU threads, on which the rounding of sums depends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _counter(notify: Notify, label: str) -> Callable[[], None]:
    counts = itertools.count(1)

    def after_batch() -> None:
        notify(f"asking {label}: {next(counts)} batches answered")

    return after_batch


def _base_name(spec: TrialSpec) -> str:
    name = spec.model_source or str(spec.knobs["model"])
    return f"{Path(name).name} ({spec.knobs['quantization']})"


if __name__ == "__main__":
    sys.exit(main())
