"""The preflight of a sweep's specs: each model, and the whole of the data as each tokenizes it.

Reads configurations, headers of weights, tokenizers and data; no weights are loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from trainables.data.token_lengths import TokenLengths
from trainables.errors import InputError
from trainables.preflight.data_faults import DataCheck, written_by
from trainables.preflight.findings import Findings
from trainables.preflight.model_faults import CheckedModel, check_model, model_folder
from trainables.spec.trial_spec import TrialSpec

Say = Callable[[str], None]


def preflight(
    specs: Sequence[TrialSpec], *, lengths: TokenLengths, say: Say = lambda text: None
) -> Findings:
    """Everything that would fail trials of these specs, which differ in model, quantization, target
    modules, sequence_length, knobs of the task, chat_format or refused shots; `say` gets what is
    looked at.

    A model of the hub is checked if its files are on this machine, and never fetched. Never raises
    for what a user gave.
    """
    found = Findings()
    for of_model in _by_model(specs):
        name = str(of_model[0].knobs["model"])
        if model_folder(of_model[0]) is None:
            found.unchecked.append(name)
            continue
        say(name)
        try:
            model = check_model(of_model, found)
        except InputError as error:
            found.faults += error.messages
            continue
        if model is not None:
            _check_data(model, of_model, found, lengths, say)
    found.faults = list(dict.fromkeys(found.faults))
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _check_data(
    model: CheckedModel,
    specs: Sequence[TrialSpec],
    found: Findings,
    lengths: TokenLengths,
    say: Say,
) -> None:
    """Checks each way to write the data, the shortest sequence_length first: it fits all others."""
    check = DataCheck(model, lengths, found, say)
    read = {(spec.knobs["sequence_length"], written_by(spec)): spec for spec in specs}
    for spec in sorted(read.values(), key=lambda spec: int(spec.knobs["sequence_length"])):
        check.check(spec)


def _by_model(specs: Iterable[TrialSpec]) -> list[list[TrialSpec]]:
    models: dict[tuple[str, str], list[TrialSpec]] = defaultdict(list)
    for spec in specs:
        models[spec.model_source, spec.revision].append(spec)
    return list(models.values())
