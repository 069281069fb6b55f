"""Models to compare: finds the trials, runs and plain models that a user names.

Each trial brings its untrained base. A plain model is asked as the base of the first trial is:
with the same task, data and prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.planning.sources import find_model
from orchestrator.runs.results import open_run, read_labels, read_metrics, read_trials
from orchestrator.runs.trial_label import TrialLabels, distinct_names
from orchestrator.runs.trial_result import ranked
from trainables.errors import InputError
from trainables.spec.knobs import untrained_knobs
from trainables.spec.states import BASELINE, FINISHED
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage.bucket_store import open_store
from trainables.storage.errors import StorageError
from trainables.storage.object_store import is_url
from trainables.storage.run_folder import RunFolder
from trainables.storage.sealed_json import DamagedError
from trainables.storage.trial_folder import TrialFolder
from trainables.storage.trial_reader import DAMAGED

MODEL = "model"  # the kind of a plain model; a trial's kind is the title of its method
_SHOWN = 4  # trials of a run that a message names


@dataclass(frozen=True)
class ModelUnderTest:
    """One model; `spec` has its base, task, data and prompt.

    `folder`: the trial that trained it, or the baseline trial of an untrained base, if it exists.
    `is_plain`: the user named a model and not a trial. `base_name` and `label` tell its base and
    itself from the others that are compared.
    """

    spec: TrialSpec
    folder: TrialFolder | None = None
    is_plain: bool = False
    base_name: str = ""
    label: str = ""

    @property
    def kind(self) -> str:
        return MODEL if self.is_plain else self.spec.method.title

    @property
    def name(self) -> str:
        """The id of its trial, or the name of the model."""
        if not self.is_of_a_trial:
            return self.base_name
        return "" if self.folder is None else self.folder.trial_id

    @property
    def is_of_a_trial(self) -> bool:
        """Whether a trial has trained or prompted it; else it is a base or a plain model."""
        return not self.spec.method.is_baseline

    @property
    def trained(self) -> Path | None:
        """The folder of the trained adapter or model; None if nothing was trained."""
        if self.folder is None or not self.spec.method.trains:
            return None
        return self.folder.trained_folder(self.spec)

    @property
    def threads(self) -> int | None:
        """The number of CPU threads of its trial, or None if it is not recorded."""
        summary = (self.folder.summary() if self.folder else None) or {}
        count = (summary.get("provenance") or {}).get("cpu_threads")
        return int(str(count)) if str(count).isdigit() else None

    def eval_batch(self, split: str) -> int | None:
        """The evaluation batch size that the sweep used on a split, or None for the spec's.

        Summaries written before it was recorded fall back to the predicted batch size.
        """
        if self.folder is None:
            return None
        noted = self.folder.summary() if split == "selection" else self.folder.report_score()
        executed = _count(((noted or {}).get("facts") or {}).get("executed_eval_batch"))
        if executed or split != "selection" or self.spec.role == BASELINE:
            return executed
        predicted = _count((self.folder.estimate() or {}).get("eval_batch"))
        return min(predicted, self.spec.execution.eval_batch_size) if predicted else None


def asked_models(
    names: Sequence[str],
    *,
    quantization: str = "none",
    plain_spec: TrialSpec | None = None,
    with_bases: bool = True,
) -> list[ModelUnderTest]:
    """The named models, each once and in order; a trial is preceded by its base.

    `plain_spec` is how a plain model is asked if no trial is named. Raises InputError with every
    reason why a model can't be loaded or can't be compared with the first.
    """
    faults: list[str] = []
    found: list[ModelUnderTest | None] = []
    for name in names:
        try:
            found.append(_trial(name))
        except InputError as error:
            faults += error.messages
    trials = [each for each in found if each is not None]
    template = trials[0].spec if trials else plain_spec
    if not faults:
        faults += _not_alike(trials)
    models: list[ModelUnderTest] = []
    for name, trial in zip(names, found, strict=False) if not faults else ():
        try:
            models += (
                _with_base(trial, with_bases) if trial else [_plain(name, template, quantization)]
            )
        except InputError as error:
            faults += error.messages
    if faults:
        raise InputError(faults)
    return _told_apart(list(_once(models)))


def _told_apart(models: Sequence[ModelUnderTest]) -> list[ModelUnderTest]:
    """The models with names and labels of which no two are alike; a base's has no method.

    That of a trial has the label that its sweep gives it, if that tells it apart here.
    """
    sources = [each.spec.model_source or str(each.spec.knobs["model"]) for each in models]
    names, labels = distinct_names(sources), TrialLabels(models=sources)
    told: list[ModelUnderTest] = []
    for place, (each, source) in enumerate(zip(models, sources, strict=True)):
        label = labels.of(f"{each.spec.trial_id}-{place}", {**each.spec.knobs, "model": source})
        known = _sweep_label(each) if each.is_of_a_trial else ""
        if known.split()[:1] == [names[source]] and all(known != other.label for other in told):
            label = known
        left_out = "" if each.is_of_a_trial else each.spec.method.label
        words = [word for word in label.split() if word != left_out]
        told.append(replace(each, base_name=names[source], label=" ".join(words)))
    return told


def _sweep_label(model: ModelUnderTest) -> str:
    """The label of a trial among those of its sweep; '' if its folder is in no run."""
    if model.folder is None or not _is_among_trials(model.folder.path):
        return ""
    return read_labels(RunFolder(model.folder.path.parent.parent)).told(model.folder.trial_id)


def is_trial_reference(name: str) -> bool:
    """Whether a name is that of a trial's or a run's folder, and not a model's."""
    if is_url(name):
        return True
    path = Path(name)
    try:
        return (path / "spec.json").exists() or is_run(path) or _is_among_trials(path)
    except OSError:  # a text that is too long for a path
        return False


def is_run(path: Path) -> bool:
    """Whether it is the folder of a run."""
    return (path / "sweep.yaml").is_file() or (path / "trials").is_dir()


def _count(value: object) -> int | None:
    """The value if it is a positive integer, or None."""
    return value if isinstance(value, int) and value >= 1 else None


def _is_among_trials(path: Path) -> bool:
    """Whether the parent is a run's folder of trials; a hub organization may be called trials."""
    return path.parent.name == "trials" and (path.parent.parent / "sweep.yaml").is_file()


def _trial(name: str) -> ModelUnderTest | None:
    """The finished trial of that name; None if it is the name of a plain model."""
    if not is_trial_reference(name):
        return None
    if is_url(name):
        return _in_bucket(name)
    path = Path(name)
    if is_run(path):
        return _best(open_run(path), name)
    if not path.is_dir():
        raise InputError(f"{name}: no such trial.{_trials_there(RunFolder(path.parent.parent))}")
    return _checked(TrialFolder(path.resolve()), name)


def _in_bucket(name: str) -> ModelUnderTest:
    """The trial of RUN_URL/trials/ID, else the best of a run, whose storage may end in trials."""
    run_url, _, trial_id = name.rstrip("/").rpartition("/trials/")
    if is_url(run_url) and "/" not in trial_id and _holds_a_run(run_url):
        return _checked(open_run(run_url).trial(trial_id), name)
    return _best(open_run(name), name)


def _holds_a_run(url: str) -> bool:
    """Reads one object only: fetching a storage folder that is not a run would copy all of it."""
    try:
        return open_store(url).get("sweep.yaml") is not None
    except StorageError as error:
        raise InputError(str(error)) from error


def _checked(folder: TrialFolder, name: str) -> ModelUnderTest:
    spec = _spec(folder, name)
    fault = _not_loadable(folder, spec)
    if fault is not None:
        raise InputError(f"{name}: {fault}")
    return ModelUnderTest(spec, folder)


def _best(run: RunFolder, name: str) -> ModelUnderTest:
    results = ranked(read_trials(run), read_metrics(run).ranking)
    for result in results:
        folder = _absolute(result.folder)
        try:
            spec = _spec(folder, name)
        except InputError:
            continue
        if _not_loadable(folder, spec) is None:
            return ModelUnderTest(spec, folder)
    what = "its finished trials are damaged or removed" if results else "no trial has finished"
    raise InputError(f"{name}: {what}, so there is no best one to ask.")


def _absolute(folder: TrialFolder) -> TrialFolder:
    """With an absolute path, for a process in another folder; a bucket's copy has one already."""
    return folder if folder.mirror is not None else TrialFolder(folder.path.resolve())


def _spec(folder: TrialFolder, name: str) -> TrialSpec:
    try:
        return folder.spec()
    except (OSError, DamagedError) as error:
        raise InputError(f"{name}: {folder.spec_file.name} can't be read: {error}") from error


def _not_loadable(folder: TrialFolder, spec: TrialSpec) -> str | None:
    """The reason why a trial can't be asked and what to do, or None."""
    summary = folder.summary()
    if summary is None:
        if folder.summary_file.exists():
            return "its summary.json is damaged. The next start of the sweep mends that."
        return "the trial has not finished. Run the sweep's command again, or wait for it."
    state, reason = str(summary.get("state")), summary.get("reason")
    if state != FINISHED:
        told = f"{state} ({reason})" if reason else state
        return f"the trial is {told}; only finished trials keep what they have trained."
    return _missing(folder, spec) if spec.method.trains else None


def _missing(folder: TrialFolder, spec: TrialSpec) -> str | None:
    """The reason why a finished trial has nothing to load, or None."""
    if folder.model_was_removed:
        return f"its model was removed: {_why_removed(folder)}"
    try:
        folder.pull_trained()
    except StorageError as error:
        return str(error)
    place = folder.trained_folder(spec)
    faults = folder.unusable_adapter() or ({} if place.is_dir() else {place: DAMAGED})
    for file, fault in faults.items():
        return f"{file} is {fault}; don't use it." if fault == DAMAGED else f"{file} {fault}."
    return None


def _why_removed(folder: TrialFolder) -> str:
    reason = str(folder.read(folder.removed_model_file).get("reason", "")).rstrip(".")
    return f"{reason}. Train it again in a sweep of its own to ask it."


def _trials_there(run: RunFolder) -> str:
    names = [folder.trial_id for folder in run.trials()] if run.trials_folder.is_dir() else []
    more = ", ..." if len(names) > _SHOWN else ""
    shown = f"{', '.join(names[:_SHOWN])}{more}"
    return f" {run.path} has {shown}." if names else f" {run.path} has no trials."


def _not_alike(trials: Sequence[ModelUnderTest]) -> Iterator[str]:
    """Faults of trials whose task or data differ from the first, so that questions differ."""
    for each in trials[1:]:
        first, other = trials[0], each.spec
        assert each.folder is not None and first.folder is not None
        pair = f"{each.folder.path}: it can't be compared with {first.folder.path}:"
        if other.task != first.spec.task:
            yield f"{pair} its task is {other.task}, not {first.spec.task}."
        elif _data(other) != _data(first.spec):
            yield f"{pair} it was trained and judged on other data. Ask each alone."


def _data(spec: TrialSpec) -> Any:
    return spec.task_identity.get("data")


def _with_base(trial: ModelUnderTest, with_bases: bool) -> list[ModelUnderTest]:
    if not with_bases or not trial.is_of_a_trial:
        return [trial]
    return [_base_of(trial), trial]


def _base_of(trial: ModelUnderTest) -> ModelUnderTest:
    spec = untrained(trial.spec)
    assert trial.folder is not None
    judged = trial.folder.path.parent / spec.trial_id
    return ModelUnderTest(spec, TrialFolder(judged) if judged.is_dir() else None)


def untrained(spec: TrialSpec, **knobs: Any) -> TrialSpec:
    """The untrained baseline with the trial's task, prompt and sequence length."""
    budget = Budget(0, spec.budget.eval_examples, (1.0,))
    given = untrained_knobs({**spec.knobs, **knobs})
    return replace(spec, role="baseline", knobs=given, budget=budget)


def _plain(name: str, template: TrialSpec | None, quantization: str) -> ModelUnderTest:
    assert template is not None  # the caller passes plain_spec if no trial is named
    source = find_model(name, allow_bin=template.execution.allow_bin_weights)
    knobs: Mapping[str, Any] = {"model": name, "quantization": quantization}
    spec = untrained(template, **knobs)
    spec = replace(spec, model_source=source.location, model_digest=source.digest)
    return ModelUnderTest(replace(spec, revision=source.revision), is_plain=True)


def _once(models: Iterable[ModelUnderTest]) -> Iterator[ModelUnderTest]:
    """Leaves out repeated models: trials may have the same base."""
    seen: set[tuple[str, Any]] = set()
    for each in models:
        key = (each.spec.trial_id, each.spec.knobs["sequence_length"])
        if key not in seen:
            seen.add(key)
            yield each
