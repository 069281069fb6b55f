"""Encodes examples: prompts and completions as token ids.

A prompt is tokenized as for generation, and a completion as its continuation. The loss is that of
completion tokens only, and of a conversation's earlier turns that are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainables.data.beginning import shared_beginning
from trainables.data.chat_template import chat_of, template_faults
from trainables.data.conversations import Conversations
from trainables.data.shots import Shots
from trainables.data.targets import checked_targets
from trainables.data.token_rows import TokenRows, TooLong
from trainables.errors import InputError
from trainables.spec.rows.chat_formats import AUTO
from trainables.tasks.task import LINE_BREAK, Answering, Cut, Example, Prompt, Shot, Task

_SLACK_TOKENS = 8  # a shortened prompt with at most so many unused tokens is not refined
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class ChoiceTokens:
    """An answer among which a likelihood decides: its text, and its tokens after the prompt."""

    text: str
    tokens: Tokens


@dataclass(frozen=True)
class Encoded(TokenRows):
    """The tokenized examples of one split; entry i of each field belongs to example i.

    `stop` is the task's, or what ends a turn of a conversation. `choices` are there if the task
    answers by likelihood, `shots` (ids of those that fit) if there are any. An example that does
    not fit has no tokens and is one of `too_long`; one that lost shots is one of `lost_shots`. All
    prompts of the split begin with the same `beginning` tokens, which are worth computing once; 0
    if there are none.
    """

    examples: tuple[Example, ...]
    prompts: tuple[Tokens, ...]
    completions: tuple[Tokens, ...]
    cut: tuple[bool, ...]
    too_long: tuple[TooLong, ...] = ()
    stop: str | None = LINE_BREAK
    choices: tuple[tuple[ChoiceTokens, ...], ...] = ()
    shots: tuple[tuple[str, ...], ...] = ()
    lost_shots: tuple[TooLong, ...] = ()
    learned: tuple[tuple[range, ...], ...] = ()
    beginning: int = 0

    @property
    def prompts_cut(self) -> int:
        """The number of prompts that were shortened."""
        return sum(self.cut)

    @property
    def fitting(self) -> list[int]:
        """The indices of the examples that fit."""
        return [index for index, prompt in enumerate(self.prompts) if prompt]

    def shots_of(self, index: int) -> tuple[str, ...]:
        """The ids of the shots of an example."""
        return self.shots[index] if self.shots else ()

    def without_too_long(self) -> Encoded:
        """Only the examples that fit; `too_long` still names the others."""
        return replace(self.subset(self.fitting), too_long=self.too_long)

    def subset(self, indices: Sequence[int]) -> Encoded:
        return Encoded(
            examples=tuple(self.examples[i] for i in indices),
            prompts=tuple(self.prompts[i] for i in indices),
            completions=tuple(self.completions[i] for i in indices),
            cut=tuple(self.cut[i] for i in indices),
            stop=self.stop,
            choices=tuple(self.choices[i] for i in indices) if self.choices else (),
            shots=tuple(self.shots[i] for i in indices) if self.shots else (),
            learned=tuple(self.learned[i] for i in indices) if self.learned else (),
            beginning=self.beginning,
        )

    def of_choices(self) -> Encoded:
        """A row for each choice of each example: its prompt, and the choice as the completion."""
        pairs = [(at, choice) for at, found in enumerate(self.choices) for choice in found]
        return Encoded(
            examples=tuple(self.examples[at] for at, _ in pairs),
            prompts=tuple(self.prompts[at] for at, _ in pairs),
            completions=tuple(choice.tokens for _, choice in pairs),
            cut=tuple(self.cut[at] for at, _ in pairs),
        )


def encode(
    task: Task,
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    sequence_length: int,
    shots: Shots | None = None,
    chat_format: str = AUTO,
) -> Encoded:
    """Tokenizes examples; a prompt that is too long loses `shots`, the first ones first, and then
    context, but no question or answer.

    An example that does not fit without its context either gets no tokens. Raises InputError if the
    chat template can't be used, or for a target that holds what ends an answer: it would be trained
    whole and judged by its beginning.
    """
    if chat_format == AUTO and (faults := template_faults(tokenizer)):
        raise InputError([f"model: {tokenizer.name_or_path}: {fault}" for fault in faults])
    writer = _Writer(tokenizer, end=task.target_end, chat_format=chat_format)
    prompts = [_with_shots(task, example, shots) for example in examples]
    targets = checked_targets(task, examples)
    completions = writer.completions(targets, prompts)
    choices = _choices(task, examples, prompts, writer)
    longest = [
        max([len(completion), *(len(choice.tokens) for choice in found)])
        for completion, found in zip(completions, choices, strict=True)
    ]
    whole = writer.tokenize([writer.text(prompt) for prompt in prompts])
    lost_shots = []
    for at, room in enumerate(longest):
        if prompts[at].shots and len(whole[at]) + room > sequence_length:
            lost_shots.append(TooLong(examples[at].id, len(whole[at]) + room))
            limit = sequence_length - room
            prompts[at], whole[at] = writer.drop_shots(prompts[at], whole[at], limit)
    fitted = [
        writer.fit(prompt, tokens, sequence_length - room)
        for prompt, tokens, room in zip(prompts, whole, longest, strict=True)
    ]
    needed = [len(prompt) + room for prompt, room in zip(fitted, longest, strict=True)]
    fits = [tokens <= sequence_length for tokens in needed]
    learned = [
        writer.learned(prompt, row) if fit else ()
        for prompt, row, fit in zip(prompts, fitted, fits, strict=True)
    ]
    return Encoded(
        examples=tuple(examples),
        prompts=tuple(row if fit else () for row, fit in zip(fitted, fits, strict=True)),
        completions=tuple(row if fit else () for row, fit in zip(completions, fits, strict=True)),
        cut=tuple(
            fit and short != long for short, long, fit in zip(fitted, whole, fits, strict=True)
        ),
        too_long=tuple(
            TooLong(example.id, tokens)
            for example, tokens, fit in zip(examples, needed, fits, strict=True)
            if not fit
        ),
        stop=task.stop or writer.mark(prompts, targets),
        choices=tuple(row if fit else () for row, fit in zip(choices, fits, strict=True))
        if any(choices)
        else (),
        shots=tuple(tuple(shot.example_id for shot in prompt.shots) for prompt in prompts)
        if shots is not None
        else (),
        lost_shots=tuple(lost_shots),
        learned=tuple(learned) if any(learned) else (),
        beginning=0  # a token that has a loss must be in its row
        if any(learned)
        else shared_beginning([row for row, fit in zip(fitted, fits, strict=True) if fit]),
    )


def _with_shots(task: Task, example: Example, shots: Shots | None) -> Prompt:
    prompt = task.prompt(example)
    if shots is None:
        return prompt
    shown = (Shot(shot.id, task.prompt(shot), task.target(shot)) for shot in shots.of(example))
    return replace(prompt, shots=tuple(shown))


def _choices(
    task: Task, examples: Sequence[Example], prompts: Sequence[Prompt], writer: _Writer
) -> list[tuple[ChoiceTokens, ...]]:
    """The choices of each example; none if the task's answers are written."""
    if task.answering is Answering.GENERATION:
        return [() for _ in examples]
    texts = [task.choices(example) for example in examples]
    owners = [prompt for prompt, own in zip(prompts, texts, strict=True) for _ in own]
    written = [text for own in texts for text in own]
    tokens = iter(writer.open_completions(written, owners))
    return [tuple(ChoiceTokens(text, next(tokens)) for text in own) for own in texts]


class _Writer:
    """Writes prompts and completions with one tokenizer, in one chat format or as plain text."""

    def __init__(self, tokenizer: Any, *, end: str, chat_format: str) -> None:
        self._tokenizer, self._end = tokenizer, end
        self._chat = chat_of(tokenizer, chat_format)
        self._conversations = Conversations.of(tokenizer, self._chat)

    def text(self, prompt: Prompt, pieces: Sequence[str] | None = None) -> str:
        if prompt.turns is not None:
            return self._conversations.opened(prompt)
        message = "".join(prompt.pieces if pieces is None else pieces)
        if self._chat is None:
            message = "".join(map(self._shown, prompt.shots)) + message
            broken = message.endswith("\n") or not prompt.reply
            return message + ("" if broken else "\n") + prompt.reply
        earlier = [(shot.prompt.text, self._answered(shot)) for shot in prompt.shots]
        begun = f"{self._chat.joint}{prompt.reply}" if prompt.reply else ""
        return self._chat.prompt(message, earlier=earlier) + begun

    def drop_shots(self, prompt: Prompt, tokens: Tokens, limit: int) -> tuple[Prompt, Tokens]:
        """The prompt with as many of its shots as fit into `limit`, and its tokens."""
        while len(tokens) > limit and prompt.shots:
            prompt = replace(prompt, shots=prompt.shots[1:])
            tokens = self._of(prompt, prompt.pieces)
        return prompt, tokens

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """The token ids of prompts, with one beginning token if the tokenizer has one."""
        bos = self._tokenizer.bos_token
        begun = bos is not None and texts != [] and texts[0].startswith(bos)
        rows = self._tokenizer(list(texts), add_special_tokens=not begun)["input_ids"]
        return [self._open(tuple(row)) for row in rows]

    def completions(self, targets: Sequence[str], prompts: Sequence[Prompt]) -> list[Tokens]:
        """The tokens of a target and its end as they follow the reply, and the end token; in a
        conversation what its template writes at the end of the turn."""
        ended = [
            self._ended(target, prompt) for target, prompt in zip(targets, prompts, strict=True)
        ]
        return [
            self._closed(row) if prompt.turns is None else row
            for row, prompt in zip(self.open_completions(ended, prompts), prompts, strict=True)
        ]

    def learned(self, prompt: Prompt, row: Tokens) -> tuple[range, ...]:
        """As `Conversations.learned`; none outside of conversations."""
        return () if prompt.turns is None else self._conversations.learned(prompt, row)

    def mark(self, prompts: Sequence[Prompt], targets: Sequence[str]) -> str | None:
        """The text that ends the turns of conversations, if the end token does not."""
        for prompt, target in zip(prompts[:1], targets[:1], strict=True):
            if prompt.turns is not None:
                return self._conversations.mark(prompt, f"{target}{self._end}")
        return None

    def open_completions(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Tokens]:
        """The tokens of texts as they follow the reply, each of its prompt."""
        if not texts:
            return []
        leads = [prompt.reply or self._last_line(prompt) for prompt in prompts]
        pairs = zip(prompts, texts, strict=True)
        after = [f"{self._joint(prompt, text)}{text}" for prompt, text in pairs]
        joined = [lead + text for lead, text in zip(leads, after, strict=True)]
        return [
            row[len(lead) :] if row[: len(lead)] == lead else alone
            for row, lead, alone in zip(
                self._plain(joined), self._plain(leads), self._plain(after), strict=True
            )
        ]

    def _ended(self, target: str, prompt: Prompt) -> str:
        answer = f"{target}{self._end}"
        return answer if prompt.turns is None else self._conversations.ending(prompt, answer)

    def _shown(self, shot: Shot) -> str:
        """A shot as plain text."""
        return f"{self.text(shot.prompt)}{self._joint(shot.prompt, shot.target)}{shot.target}\n\n"

    def _answered(self, shot: Shot) -> str:
        """The assistant's turn of a shot."""
        joint = self._joint(shot.prompt, shot.target) if shot.prompt.reply else ""
        return f"{shot.prompt.reply}{joint}{shot.target}"

    def _joint(self, prompt: Prompt, target: str) -> str:
        joint = prompt.joint if prompt.reply or self._chat is None else self._chat.joint
        return "" if prompt.turns is not None or target[:1].isspace() else joint

    def _last_line(self, prompt: Prompt) -> str:
        """The end of the prompt, with its line breaks, on which the tokens after it may depend."""
        text = self.text(prompt)
        return text[text.rstrip("\n").rfind("\n") + 1 :]

    def fit(self, prompt: Prompt, tokens: Tokens, limit: int) -> Tokens:
        """`tokens`, or the tokens of the prompt with as much context as fits into `limit`; if that
        is too much without any context, more than `limit` tokens."""
        if len(tokens) <= limit:
            return tokens
        pieces = list(prompt.pieces)
        for cut in prompt.cuts:
            shortened = self._shorten(prompt, pieces, cut, limit)
            if len(shortened) <= limit:
                return shortened
        return self._of(prompt, pieces)

    def _shorten(self, prompt: Prompt, pieces: list[str], cut: Cut, limit: int) -> Tokens:
        """Removes as few characters of a piece as needed, in place; searches by interpolation."""
        whole = pieces[cut.piece]

        def attempt(removed: int) -> Tokens:
            kept = whole[removed:] if cut.side == "start" else whole[: len(whole) - removed]
            pieces[cut.piece] = kept
            return self._of(prompt, pieces)

        best = attempt(len(whole))
        if len(best) > limit:
            return best
        low, high, over = 0, len(whole), len(attempt(0)) - limit
        for tries in range(2 * len(whole).bit_length()):
            if high - low <= 1 or limit - len(best) <= _SLACK_TOKENS:
                break
            slope = over / (over + limit - len(best)) if tries % 3 < 2 else 0.5
            middle = min(max(low + round((high - low) * slope), low + 1), high - 1)
            tokens = attempt(middle)
            if len(tokens) <= limit:
                high, best = middle, tokens
            else:
                low, over = middle, len(tokens) - limit
        return attempt(high)

    def _of(self, prompt: Prompt, pieces: Sequence[str]) -> Tokens:
        return self.tokenize([self.text(prompt, pieces)])[0]

    def _plain(self, texts: Sequence[str]) -> list[Tokens]:
        rows = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [tuple(row) for row in rows]

    def _open(self, row: Tokens) -> Tokens:
        """The row without the end token that some tokenizers append to every text."""
        ended = row[-1:] == (self._tokenizer.eos_token_id,)
        return row[:-1] if ended else row

    def _closed(self, row: Tokens) -> Tokens:
        end = self._tokenizer.eos_token_id
        return row if end is None or row[-1:] == (end,) else (*row, end)
