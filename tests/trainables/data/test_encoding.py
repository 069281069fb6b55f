"""Examples as tokens: which tokens have a loss, what is cut, and the training order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.tiny_models import CHAT_TEMPLATE, make_tokenizer
from tests.tiny_trials import make_spec, shared_base
from trainables.data.batches import IGNORED, collate, fixed_subset, training_order
from trainables.data.chat_template import chat_of
from trainables.data.encoding import Encoded, encode
from trainables.data.token_lengths import SplitLengths, length_fault
from trainables.data.token_rows import TooLong
from trainables.data.trial_data import load_data
from trainables.errors import InputError
from trainables.spec.rows.chat_formats import CHAT_FORMATS
from trainables.tasks.registry import make_task
from trainables.tasks.task import LINE_BREAK, Answering, Cut, Example, Prompt, Task


class Pages:
    """A task whose examples are pages of words around a question."""

    name = "pages"
    stop: str | None = LINE_BREAK
    target_end = LINE_BREAK
    answering = Answering.GENERATION

    def prompt(self, example: Example) -> Prompt:
        before, question, after = example.record["pieces"]
        cuts = (Cut(piece=2, side="end"), Cut(piece=0, side="start"))
        return Prompt(pieces=(before, question, after), cuts=cuts, reply="Answer:")

    def target(self, example: Example) -> str:
        return str(example.record["answer"])


def test_a_prompt_ends_in_the_reply_and_a_completion_is_the_answer_and_a_newline() -> None:
    tokenizer = make_tokenizer()
    encoded = _encode(tokenizer, [_page("the page\n", "how many?", "", answer="12")])
    assert tokenizer.decode(encoded.prompts[0]) == "<s>the page\nhow many?\nAnswer:"
    assert tokenizer.decode(encoded.completions[0]) == " 12\n</s>"


def test_a_chat_template_wraps_the_question_and_the_answer_begins_in_the_reply() -> None:
    tokenizer = make_tokenizer(chat_template=CHAT_TEMPLATE)
    encoded = _encode(tokenizer, [_page("", "how many?", "", answer="12")])
    expected = "<s><|user|>how many?</s><|assistant|>Answer:"
    assert tokenizer.decode(encoded.prompts[0]) == expected


@pytest.mark.parametrize("chat_format", CHAT_FORMATS)
def test_in_a_named_format_the_answer_follows_as_in_an_earlier_turn(chat_format: str) -> None:
    """Whatever template the tokenizer has; a reply comes after the format's joint."""
    tokenizer = make_tokenizer(chat_template="{{ messages[0]['content'][:9] }}")
    pages, chat = [_page("", "how many?", "", answer="12")], chat_of(tokenizer, chat_format)
    assert chat is not None
    encoded = encode(
        cast(Task, Pages()), pages, tokenizer, sequence_length=400, chat_format=chat_format
    )
    prompt = tokenizer.decode(encoded.prompts[0]).removeprefix("<s>")
    asked = chat.prompt("how many?").removeprefix("<s>")
    assert prompt == f"{asked}{chat.joint}Answer:" and encoded.prompts[0].count(0) == 1
    assert tokenizer.decode(encoded.completions[0]) == " 12\n</s>"


def test_with_a_template_that_drops_the_question_nothing_is_encoded() -> None:
    tokenizer = make_tokenizer(chat_template="{{ messages[0]['content'][:9] }}")
    tokenizer.name_or_path = "models/this-one"
    with pytest.raises(InputError, match=r"^model: models/this-one: .* drops the message"):
        _encode(tokenizer, [_page("a", "b", "c")])


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_the_beginning_token_comes_once(template: str | None) -> None:
    encoded = _encode(make_tokenizer(chat_template=template), [_page("a", "b", "c")])
    assert encoded.prompts[0].count(0) == 1


def test_a_tokenizer_without_a_beginning_token_gets_none() -> None:
    encoded = _encode(make_tokenizer(add_bos=False), [_page("a", "b", "c")])
    assert 0 not in encoded.prompts[0]


def test_an_answer_is_tokenized_as_it_is_after_the_prompt() -> None:
    tokenizer = make_tokenizer()
    encoded = _encode(tokenizer, [_page("a", "b", "c", answer="-0.125")])
    whole = tokenizer("abc\nAnswer: -0.125\n")["input_ids"]
    assert list(encoded.prompts[0] + encoded.completions[0]) == [*whole, 1]


def test_a_long_prompt_is_cut_in_its_context_in_order_and_counted() -> None:
    page = _page("before " * 20, "how many?", " after" * 40)
    short = _page("before", "how many?", "after")
    encoded = _encode(make_tokenizer(), [page, short], sequence_length=200)
    text = make_tokenizer().decode(encoded.prompts[0])
    assert encoded.prompts_cut == 1
    assert encoded.cut == (True, False)
    assert 192 <= encoded.length(0) <= 200
    assert text.startswith("<s>before before") and "how many? after" in text
    assert text.count("before") == 20 and text.endswith("\nAnswer:")


def test_what_the_first_cut_leaves_too_long_the_second_shortens_from_its_side() -> None:
    page = _page("".join(f"{n} " for n in range(60)), "how many?", "after " * 30)
    encoded = _encode(make_tokenizer(), [page], sequence_length=100)
    text = make_tokenizer().decode(encoded.prompts[0])
    assert "after" not in text
    assert text.endswith("58 59 how many?\nAnswer:")
    assert encoded.length(0) <= 100


def test_examples_that_do_not_fit_get_no_tokens_and_are_named_with_what_they_need() -> None:
    pages = [_page("context", "how many? " * count, "") for count in (20, 1, 30)]
    encoded = _encode(make_tokenizer(), pages, sequence_length=40)
    bare = [_page("", "how many? " * count, "") for count in (20, 30)]
    needed = [_encode(make_tokenizer(), [page], sequence_length=400).length(0) for page in bare]
    assert [each.tokens for each in encoded.too_long] == needed
    assert encoded.fitting == [1] and encoded.prompts[0] == encoded.completions[2] == ()
    kept = encoded.without_too_long()
    assert len(kept) == 1 and kept.too_long == encoded.too_long and kept.cut == (False,)


@pytest.mark.parametrize("length", [48, 4096])
def test_all_examples_that_do_not_fit_are_one_error_that_says_what_would_do(
    tiny_llama: Path, length: int
) -> None:
    spec = make_spec(tiny_llama, sequence_length=length)
    nine = SplitLengths.of([(9, 1)] * 9)
    splits = {
        "train": replace(nine, too_long=(TooLong("a", 700), TooLong("b", 817))),
        "report": replace(nine, too_long=(TooLong("c", 650),)),
    }
    told = length_fault(spec, splits, min(length, 512))
    assert told is not None and "2 of 9 of the train split, 1 of 9 of the report split" in told
    assert "the longest, b, needs 817" in told and "data.too_long: drop" in told
    way = "Set sequence_length >= 817" if length == 48 else "has no more positions"
    assert way in told
    dropping = replace(spec, task_options={**spec.task_options, "too_long": "drop"})
    assert length_fault(dropping, splits, 512) is None
    nothing_left = replace(splits["report"], prompts=(range(0),), completions=(range(0),))
    assert length_fault(dropping, {"report": nothing_left}, 512) is not None


@pytest.mark.parametrize("answer", ["5\n6", "5\r\n6", "\n5", "5\u20286", "5\x0c6"])
def test_an_answer_of_several_lines_is_refused_as_only_its_first_would_be_judged(
    answer: str,
) -> None:
    pages = [_page("a", "b", "c"), _page("a", "b", "c", answer=answer)]
    with pytest.raises(
        InputError, match=r"pages: 1 of 2 targets have several lines .* that of page"
    ):
        _encode(make_tokenizer(), pages)


def test_only_completions_have_labels_and_rows_are_padded_on_the_right() -> None:
    encoded = _encode(make_tokenizer(), [_page("a", "b", "c"), _page("a " * 9, "b", "c")])
    batch = collate(encoded, [0, 1], pad_token=2)
    assert batch.input_ids.shape == batch.labels.shape == batch.attention_mask.shape
    for row, (prompt, completion) in enumerate(
        zip(encoded.prompts, encoded.completions, strict=True)
    ):
        length = len(prompt) + len(completion)
        assert batch.input_ids[row, :length].tolist() == [*prompt, *completion]
        assert batch.input_ids[row, length:].eq(2).all()
        assert batch.attention_mask[row].sum() == length
        has_loss = batch.labels[row] != IGNORED
        assert batch.labels[row][has_loss].tolist() == list(completion)


def test_the_order_is_a_permutation_per_epoch_and_does_not_depend_on_how_it_is_read() -> None:
    whole = training_order(10, seed=3, start=0, stop=25)
    parts = [i for at in range(25) for i in training_order(10, seed=3, start=at, stop=at + 1)]
    assert whole == parts
    assert sorted(whole[:10]) == sorted(whole[10:20]) == list(range(10))
    assert whole[:10] != whole[10:20]
    assert whole != training_order(10, seed=4, start=0, stop=25)


def test_the_subset_asked_at_rungs_is_the_same_for_every_trial() -> None:
    assert fixed_subset(50, 5, seed=1) == fixed_subset(50, 5, seed=1)
    assert fixed_subset(50, 5, seed=1) != fixed_subset(50, 5, seed=2)
    assert len(set(fixed_subset(50, 5, seed=1))) == 5
    assert fixed_subset(3, 5, seed=1) == [0, 1, 2]


def test_equal_data_are_tokenized_once(tiny_llama: Path) -> None:
    cache: dict[Any, Any] = {}
    spec = make_spec(tiny_llama)
    first = load_data(spec, shared_base(spec), cache)
    other = make_spec(tiny_llama, quantization="nf4", rank=2)
    assert load_data(other, shared_base(other), cache) is first
    assert first.split("train") is first.split("train")
    longer = make_spec(tiny_llama, sequence_length=300)
    assert load_data(longer, shared_base(longer), cache) is not first


def test_the_knobs_decide_the_prompt_and_the_target(tiny_llama: Path) -> None:
    spec = make_spec(tiny_llama, prompt="short", target="program", sequence_length=512)
    data = load_data(spec, shared_base(spec), {})
    task = make_task("finqa", {**spec.task_options, "prompt": "short", "target": "program"})
    example = data.split("train").examples[0]
    assert data.task.target(example) == task.target(example)
    assert data.task.prompt(example) == task.prompt(example)


def test_a_sequence_is_never_longer_than_the_model_has_positions(tiny_llama: Path) -> None:
    spec = make_spec(tiny_llama, sequence_length=4096)
    assert load_data(spec, shared_base(spec), {}).sequence_limit == 512


def _page(before: str, question: str, after: str, *, answer: str = "5") -> Example:
    record = {"pieces": (before, question, after), "answer": answer}
    return Example(id="page", record=record, group="page")


def _encode(tokenizer: Any, pages: Sequence[Example], *, sequence_length: int = 256) -> Encoded:
    task: Any = Pages()
    return encode(task, pages, tokenizer, sequence_length=sequence_length)
