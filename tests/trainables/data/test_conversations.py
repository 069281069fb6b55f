"""Conversations as tokens: how they are written, which tokens have a loss, what ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import make_tokenizer
from tests.tiny_trials import make_spec, shared_base
from tests.trainables.tasks.own_data.own_file import write_jsonl
from trainables.data.batches import IGNORED, collate
from trainables.data.encoding import Encoded, encode
from trainables.data.shots import Shots
from trainables.data.token_lengths import SplitLengths
from trainables.errors import InputError
from trainables.resources.flops import batch_forward_backward
from trainables.tasks.registry import make_task
from trainables.tasks.task import Example

CHAT = [
    ("system", "Be short."),
    ("user", "one?"),
    ("assistant", "1"),
    ("user", "two?"),
    ("assistant", "2"),
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
FORGETFUL = (  # leaves out what earlier answers said, as some do with their reasoning
    "{% for m in messages %}{% if m['role'] != 'assistant' or loop.last %}"
    "{{ '[' + m['role'] + ']' + m['content'] + ';' }}{% else %}[assistant];{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def _encode(
    folder: Path,
    tokenizer: Any,
    chat: Sequence[tuple[str, str]] = CHAT,
    *,
    sequence_length: int = 256,
    shots: Sequence[Example] = (),
    chat_format: str = "auto",
    **options: Any,
) -> Encoded:
    messages = [{"role": role, "content": content} for role, content in chat]
    file = write_jsonl(folder / "a.jsonl", [{"messages": messages}])
    task = make_task("chat", {"train": str(file), "asked": "train", **options})
    shown = Shots(shots, len(shots), lambda example: range(len(shots))) if shots else None
    return encode(
        task,
        task.load("train"),
        tokenizer,
        sequence_length=sequence_length,
        shots=shown,
        chat_format=chat_format,
    )


def _counted(encoded: Encoded, tokenizer: Any) -> list[str]:
    row = encoded.prompts[0] + encoded.completions[0]
    return [tokenizer.decode(row[span.start : span.stop]) for span in encoded.counted(0)]


def test_without_a_template_a_conversation_is_written_plainly(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    encoded = _encode(tmp_path, tokenizer)
    assert tokenizer.decode(encoded.prompts[0]) == (
        "<s>Be short.\n\nUser: one?\nAssistant: 1</s>\nUser: two?\nAssistant:"
    )
    assert _counted(encoded, tokenizer) == [" 2</s>"] and encoded.stop is None


@pytest.mark.parametrize(
    ("template", "counted", "stop"),
    [
        (None, [" 1</s>", " 2</s>"], None),
        (CHATML, ["1<|im_end|>\n", "2<|im_end|>\n"], "<|im_end|>"),
        (NO_END, ["1", "2</s>"], None),
    ],
)
@pytest.mark.parametrize("add_bos", [True, False])
def test_every_turn_of_the_assistant_is_learned_with_what_ends_it(
    template: str | None, counted: list[str], stop: str | None, add_bos: bool, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(chat_template=template, add_bos=add_bos)
    encoded = _encode(tmp_path, tokenizer, loss_on="all")
    assert _counted(encoded, tokenizer) == counted
    assert encoded.stop == stop
    last = _encode(tmp_path, tokenizer)
    assert _counted(last, tokenizer) == counted[1:]
    assert (last.prompts, last.completions) == (encoded.prompts, encoded.completions)


def test_a_template_that_rewrites_earlier_turns_can_be_learned_on_the_last_only(
    tmp_path: Path,
) -> None:
    tokenizer = make_tokenizer(chat_template=FORGETFUL)
    assert _counted(_encode(tmp_path, tokenizer), tokenizer) == ["2;"]
    with pytest.raises(InputError, match=r"data\.loss_on: .* Set loss_on: last"):
        _encode(tmp_path, tokenizer, loss_on="all")


@pytest.mark.parametrize(
    ("chat_format", "prompt", "counted", "stop"),
    [
        (
            "none",
            "Be short.\n\nUser: one?\nAssistant: 1</s>\nUser: two?\nAssistant:",
            " 2</s>",
            None,
        ),
        (
            "chatml",
            "<|im_start|>user\nBe short.\n\none?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
            "<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\n",
            "2<|im_end|>\n",
            "<|im_end|>",
        ),
        (
            "llama-2",
            "[INST] Be short.\n\none? [/INST] 1 </s><s>[INST] two? [/INST]",
            " 2 </s>",
            None,
        ),
    ],
)
def test_a_format_writes_the_conversation_in_place_of_the_template(
    chat_format: str, prompt: str, counted: str, stop: str | None, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(chat_template=NO_END)
    encoded = _encode(tmp_path, tokenizer, chat_format=chat_format)
    assert tokenizer.decode(encoded.prompts[0]) == f"<s>{prompt}"
    assert _counted(encoded, tokenizer) == [counted] and encoded.stop == stop


def test_only_what_is_learned_has_labels_and_logits(tmp_path: Path) -> None:
    encoded = _encode(tmp_path, make_tokenizer(), loss_on="all")
    batch = collate(encoded, [0], pad_token=2)
    labels = batch.labels[0].tolist()
    for at, token in enumerate(batch.input_ids[0].tolist()):
        is_counted = any(at in span for span in encoded.counted(0))
        assert labels[at] == (token if is_counted else IGNORED)
    counted = encoded.counted_tokens([0])
    assert counted == sum(label != IGNORED for label in labels)
    assert batch_forward_backward(encoded, [0]).positions == counted


def test_lengths_keep_the_places_of_what_is_learned(tmp_path: Path) -> None:
    encoded = _encode(tmp_path, make_tokenizer(), loss_on="all")
    lengths = SplitLengths.of([(len(encoded.prompts[0]), len(encoded.completions[0]))])
    lengths = SplitLengths.from_json({**lengths.to_json(), "learned": [[[3, 5]]]})
    assert lengths.counted(0)[0] == range(3, 5)
    assert SplitLengths.from_json(lengths.to_json()) == lengths
    assert lengths.subset([0]).learned == lengths.learned


def test_a_conversation_that_does_not_fit_is_not_shortened(tmp_path: Path) -> None:
    encoded = _encode(tmp_path, make_tokenizer(), sequence_length=20, loss_on="all")
    assert encoded.too_long[0].tokens > 20 and encoded.prompts == ((),)
    assert encoded.learned == ()


def test_shots_are_turns_between_the_system_message_and_the_conversation(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    earlier = [{"role": "user", "content": "three?"}, {"role": "assistant", "content": "3"}]
    messages = [{"role": "system", "content": "Other."}, *earlier]
    shot = Example(
        "shot", {"question": "", "target": "3", "columns": {"messages": messages}}, group="other"
    )
    encoded = _encode(tmp_path, tokenizer, shots=[shot], loss_on="all")
    assert tokenizer.decode(encoded.prompts[0]) == (
        "<s>Be short.\n\nUser: three?\nAssistant: 3</s>\n"
        "User: one?\nAssistant: 1</s>\nUser: two?\nAssistant:"
    )
    assert _counted(encoded, tokenizer) == [" 1</s>", " 2</s>"]


def test_the_tokens_are_those_of_the_whole_text(tiny_llama: Path, tmp_path: Path) -> None:
    tokenizer = shared_base(make_spec(tiny_llama)).tokenizer
    encoded = _encode(tmp_path, tokenizer, loss_on="all")
    text = "Be short.\n\nUser: one?\nAssistant: 1</s>\nUser: two?\nAssistant: 2</s>"
    assert list(encoded.prompts[0] + encoded.completions[0]) == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("chat_format", "stop"), [("chatml", "<|im_end|>"), ("dolly", "### End"), ("none", None)]
)
@pytest.mark.parametrize("answer", ["d", "end", "n", "E", "s", ">"])
def test_what_ends_a_turn_does_not_depend_on_its_answer(
    chat_format: str, stop: str | None, answer: str, tmp_path: Path
) -> None:
    chat = [("user", "one?"), ("assistant", answer)]
    assert _encode(tmp_path, make_tokenizer(), chat, chat_format=chat_format).stop == stop
