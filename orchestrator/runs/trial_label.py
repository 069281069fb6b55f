"""Labels of trials for tables, plots and trackers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.space.enumeration import values_of
from orchestrator.space.tree import Choice, Space, questions
from trainables.spec.knobs import KNOBS, method_of

PATHS = ("model", "prompt")  # the knobs whose values may be paths
_MOST_DECIMALS = 12  # more than a label has usually


class TrialLabels:
    """The labels of a sweep's trials, as 'small nf4 r8 a16 lr1.3e-03 b8x2'; no two are alike.

    A label has the model, by as much of its path as tells the sweep's models apart, quantization,
    method (none for the default method), the labels of KNOBS, and the knobs that `space` varies
    beside those. Knobs that the configuration does not have are left out; an untrained baseline
    reads 'small nf4 untrained'. 'b16auto' are 16 examples per step, in micro-batches that fit;
    'full z3 w4' is full fine-tuning under ZeRO-3 on four workers; 'prompt2' is the second text
    among the space's prompts. A trial whose label is taken gets the knobs, or the decimals, by
    which it differs from the one that has it, or else its id.

    A label that was told stays. If trials are asked for in the order in which they were planned,
    every command tells the same ones.
    """

    def __init__(self, space: Space | None = None, *, models: Iterable[str] = ()) -> None:
        self._varied = _varied(space) if space else frozenset()
        self._names = {
            knob: _short_names([*_values(space, knob), *(models if knob == "model" else ())])
            for knob in PATHS
        }
        self._told: dict[str, str] = {}  # by trial id
        self._taken: dict[str, Mapping[str, Any]] = {}  # the knobs of a label's trial

    def of(self, trial_id: str, knobs: Mapping[str, Any]) -> str:
        """The label of a trial or baseline."""
        if trial_id not in self._told:
            candidates = self._candidates(trial_id, knobs)
            label = next(text for text in candidates if text not in self._taken)
            self._told[trial_id], self._taken[label] = label, knobs
        return self._told[trial_id]

    def told(self, trial_id: str) -> str:
        """The label that `of` has told; '' if it was not asked for the trial."""
        return self._told.get(trial_id, "")

    def model_name(self, knobs: Mapping[str, Any]) -> str:
        """The model's name as in the label."""
        return str(self._shown(knobs).get("model") or "?")

    def _candidates(self, trial_id: str, knobs: Mapping[str, Any]) -> Iterator[str]:
        plain = _text(self._shown(knobs), also=self._varied)
        yield plain
        other = self._taken[plain]
        differing = {name for name in knobs if knobs[name] != other.get(name)}
        for more in range(_MOST_DECIMALS):
            decimals = dict.fromkeys(differing, more)
            yield _text(self._shown(knobs), also=self._varied | differing, decimals=decimals)
        yield f"{plain} {trial_id[:6]}"
        yield f"{plain} {trial_id}"

    def _shown(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """The knobs with short names in place of paths."""
        short = {
            knob: names.get(str(knobs[knob]), _last_part(str(knobs[knob])))
            for knob, names in self._names.items()
            if knobs.get(knob)
        }
        return {**knobs, **short}


def method_name(knobs: Mapping[str, Any]) -> str:
    """'lora', or 'full z3 w4': full fine-tuning under ZeRO-3 on four workers."""
    name = str(knobs.get("method", KNOBS["method"].default))
    return " ".join([name, *_labels(knobs, _told_with_method())])


def quantization_name(knobs: Mapping[str, Any]) -> str:
    """'nf4', or 'nf4+dq' with double quantization."""
    double = "+dq" if knobs.get("double_quantization") else ""
    return f"{knobs.get('quantization', 'none')}{double}"


def distinct_names(paths: Iterable[str]) -> dict[str, str]:
    """For each path or hub id its last part, with as many of those before it as no other has."""
    parts = {path: [part for part in path.split("/") if part not in ("", ".")] for path in paths}
    tails: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for found in parts.values():
        for count in range(1, len(found) + 1):
            tails[tuple(found[-count:])].add(tuple(found))
    return {
        path: next(
            (
                "/".join(found[-count:])
                for count in range(1, len(found) + 1)
                if len(tails[tuple(found[-count:])]) == 1
            ),
            path.rstrip("/"),
        )
        for path, found in parts.items()
    }


def _short_names(values: Iterable[str]) -> dict[str, str]:
    """Names of paths as `distinct_names`; the texts of prompts are numbered in their order."""
    found = list(dict.fromkeys(values))
    texts = [value for value in found if _is_text(value)]
    numbered = {text: f"prompt{number}" for number, text in enumerate(texts, start=1)}
    return {**distinct_names(value for value in found if value not in numbered), **numbered}


def _is_text(value: str) -> bool:
    """Whether a prompt is written out, with a column in braces, and not named."""
    return "{" in value or "\n" in value


def common_words(labels: Sequence[str]) -> str:
    """The words that all labels have, in the order of the first one."""
    words = [label.split() for label in labels]
    return " ".join(word for word in words[0] if _all_have(word, words))


def told_apart(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Each of `names`, which may be alike, with the words by which its label differs from the
    labels of those of the same name."""
    words: dict[str, list[list[str]]] = defaultdict(list)
    for name, label in zip(names, labels, strict=True):
        words[name].append(label.split())
    return [
        " ".join([name, *(word for word in label.split() if not _all_have(word, words[name]))])
        for name, label in zip(names, labels, strict=True)
    ]


def _all_have(word: str, labels: Sequence[Sequence[str]]) -> bool:
    return all(word in label for label in labels)


def _varied(space: Space) -> frozenset[str]:
    """The knobs that have several values in the space."""
    return frozenset(
        question.knob
        for question in questions(space)
        if not isinstance(question, Choice) or len(question.options) > 1
    )


def _values(space: Space | None, knob: str) -> list[str]:
    return [str(value) for _, value in values_of(space, knob)] if space else []


def _text(
    knobs: Mapping[str, Any],
    *,
    also: Collection[str] = (),
    decimals: Mapping[str, int] = {},
) -> str:
    """The label with the knobs `also` beside those that every label tells; the model as it is."""
    model = str(knobs["model"]) if knobs.get("model") else "?"
    parts = [model, quantization_name(knobs), _method_label(knobs)]
    always = [name for name, row in KNOBS.items() if row.label and row.method_place is None]
    others = [name for name, row in KNOBS.items() if name in also and not row.is_always_told]
    parts += _labels(knobs, [*_told_with_method(), *always, *others], decimals)
    return " ".join(part for part in parts if part)


def _method_label(knobs: Mapping[str, Any]) -> str:
    """A method that this version does not have is labelled by its name."""
    method = method_of(knobs)
    return str(knobs["method"]) if method is None else method.label


def _told_with_method() -> list[str]:
    """The knobs that belong to a method's name, in their order."""
    places = {name: row.method_place for name, row in KNOBS.items() if row.method_place is not None}
    return sorted(places, key=lambda name: places[name])


def _labels(
    knobs: Mapping[str, Any], names: Iterable[str], decimals: Mapping[str, int] = {}
) -> list[str]:
    """The labels of the knobs `names` that the configuration says."""
    said = [name for name in names if name in knobs and not KNOBS[name].is_unsaid(knobs[name])]
    found = [
        KNOBS[name].label_of(name, knobs, more_decimals=decimals.get(name, 0)) for name in said
    ]
    return [label for label in found if label]


def _last_part(path: str) -> str:
    if _is_text(path):
        return "prompt"
    return path.rstrip("/").split("/")[-1]
