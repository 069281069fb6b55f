"""Which models read prompts that lost context or shots to fit their sequence_length, for the
report's head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.formatting import counted
from orchestrator.reporting.document import Paragraph
from orchestrator.runs.trial_label import distinct_names
from orchestrator.runs.trial_result import TrialResult

CUT = {"train": "train_prompts_cut", "selection": "eval_prompts_cut"}  # a fact, by split
ADVICE = "A larger sequence_length, or a shorter context or prompt, leaves them more of it."
LOST_SHOTS = "eval_questions_with_fewer_shots"  # a fact
SHOT_ADVICE = "A larger sequence_length shows them all; shots_too_long: refuse tells it beforehand."
_RETRIEVED_BY = ("retriever", "scope", "k")  # knobs
_Key = tuple[str, int, str, str, str]  # model, tokens, prompt, target, context


def cut_prompts(results: Sequence[TrialResult]) -> list[Paragraph]:
    """One sentence for each model, length, prompt, target and context whose prompts lost some of
    it; nothing if none did."""
    counts: dict[_Key, dict[str, str]] = {}
    for item in results:
        for split, text in _cut(item.facts):
            counts.setdefault(_key(item), {})[split] = text
    names = distinct_names(prompt for _, _, prompt, _, _ in counts)
    several = len({(prompt, target) for _, _, prompt, target, _ in counts}) > 1
    contexts = {context for *_, context in counts}
    found = []
    for (model, tokens, prompt, target, context), by_split in counts.items():
        of_which = f" with prompt {names[prompt]}, target {target}" if several else ""
        of_which += f" ({context})" if len(contexts) > 1 else ""
        splits = " and ".join(by_split[split] for split in CUT if split in by_split)
        lost = f"{model} at {tokens} tokens{of_which}: {splits} lost part of their context."
        found.append(Paragraph(lost, strong=True))
    return [*found, Paragraph(ADVICE)] if found else []


def lost_shots(results: Sequence[TrialResult]) -> list[Paragraph]:
    """One sentence for each model, length and number of shots that did not always fit."""
    most: dict[tuple[str, int, int], tuple[int, str]] = {}
    for item in results:
        lost = item.facts.get(LOST_SHOTS)
        if isinstance(lost, int) and lost > 0:
            questions = counted(_examples(item.facts.get("selection")) or lost, "question")
            key = (item.model_name, _tokens(item), int(item.knobs["shots"]))
            most[key] = max(most.get(key, (0, "")), (lost, f"{lost} of {questions}"))
    found = [
        Paragraph(
            f"{model} at {tokens} tokens: {of} of the selection split had no room for all "
            f"{counted(shots, 'shot')}, and show fewer.",
            strong=True,
        )
        for (model, tokens, shots), (_, of) in most.items()
    ]
    return [*found, Paragraph(SHOT_ADVICE)] if found else []


def _cut(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for split, name in CUT.items():
        cut, examples = facts.get(name), _examples(facts.get(split))
        if isinstance(cut, int) and cut > 0:
            prompts = counted(examples or cut, "prompt")
            of = f"{cut} of {prompts}" if examples else prompts
            yield split, f"{of} of the {split} split"


def _examples(facts: Any) -> int:
    count = facts.get("examples") if isinstance(facts, Mapping) else None
    return count if isinstance(count, int) else 0


def _key(item: TrialResult) -> _Key:
    prompt, target = str(item.knobs.get("prompt", "")), str(item.knobs.get("target", ""))
    ways = [f"{name} {item.knobs[name]}" for name in _RETRIEVED_BY if name in item.knobs]
    context = ", ".join([f"context {item.context}", *ways])
    return item.model_name, _tokens(item), prompt, target, context


def _tokens(item: TrialResult) -> int:
    return int(item.facts.get("sequence_limit") or item.knobs.get("sequence_length") or 0)
