"""Conversations as text: their turns in a chat template or plainly, and which of them is learned.

Plainly, a system message comes first, a user's turn is a line that begins with `User:`, and an
assistant's one that begins with `Assistant:` and ends with the end token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from trainables.data.chat_template import Chat, chat_text
from trainables.errors import InputError
from trainables.tasks.task import Prompt, Turn

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Assistant: ' + message['content'] }}{{ eos_token }}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class Conversations:
    """Writes conversations with one tokenizer in a template, some of which know no system."""

    tokenizer: Any
    template: str
    has_system: bool = True

    @classmethod
    def of(cls, tokenizer: Any, chat: Chat | None) -> Conversations:
        """As `chat` writes prompts, or plainly without it.

        In the formats of CHAT_FORMATS a system message begins the first one of the user.
        """
        if chat is None:
            return cls(tokenizer, PLAIN)
        own = chat.template is None
        return cls(tokenizer, chat.template or tokenizer.get_chat_template(), has_system=own)

    def opened(self, prompt: Prompt) -> str:
        """The text up to where the answer begins."""
        return self._text(_turns(prompt))

    def ending(self, prompt: Prompt, answer: str) -> str:
        """What follows `opened`: the answer as the template writes it, with what ends its turn.

        The end token where it writes nothing after it. A template that writes the turn in another
        way than it opens it is left aside: then it is the answer and the end token.
        """
        opened, end = self.opened(prompt), self.tokenizer.eos_token or ""
        whole = self._text([*_turns(prompt), Turn("assistant", answer)], is_open=False)
        if not whole.startswith(opened):
            return f"{answer}{end}"
        written = whole[len(opened) :]
        return written if self._mark(written, answer) else f"{written}{end}"

    def mark(self, prompt: Prompt, answer: str) -> str | None:
        """The text that ends a turn, if that is not the tokenizer's end token."""
        mark, end = self._mark(self.ending(prompt, answer), answer), self.tokenizer.eos_token
        return None if not mark or (end and end in mark) else mark

    def learned(self, prompt: Prompt, row: Sequence[int]) -> tuple[range, ...]:
        """Which of the tokens `row` of the prompt are those of turns that are learned: what the
        template writes after it has opened the assistant's turn.

        Raises InputError if it writes such a turn in another way once others follow.
        """
        text, turns = self.opened(prompt), _turns(prompt)
        spans = [self._span(text, turns, at) for at, turn in enumerate(turns) if turn.is_learned]
        if not spans:
            return ()
        whole, *begun = self._tokens([text, *(text[:at] for span in spans for at in span)])
        first = 0 if row[:1] == whole[:1] else 1  # a beginning token that is not in the text
        places = [first + _common(whole, tokens) for tokens in begun]
        return tuple(map(range, places[::2], places[1::2]))

    def _span(self, text: str, turns: Sequence[Turn], at: int) -> tuple[int, int]:
        """The begin and end of a turn in the text."""
        opened = self._text(turns[:at])
        closed = self._text(turns[: at + 1], is_open=False)
        end = _common(closed, text)
        if not text.startswith(opened) or turns[at].content.strip() not in text[len(opened) : end]:
            raise InputError(
                f"data.loss_on: the chat template of {self.tokenizer.name_or_path} writes an "
                "assistant's turn in another way once others follow, so that it can't be learned "
                "as it is answered. Set loss_on: last."
            )
        return len(opened), end

    def _text(self, turns: Sequence[Turn], *, is_open: bool = True) -> str:
        written = turns if self.has_system else _without_system(turns)
        messages = [{"role": turn.role, "content": turn.content} for turn in written]
        return chat_text(self.tokenizer, messages, template=self.template, is_open=is_open)

    def _mark(self, written: str, answer: str) -> str:
        said, text = answer.strip(), written.strip()
        return (text[len(said) :] if text.startswith(said) else text.rpartition(said)[2]).strip()

    def _tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        rows = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [tuple(row) for row in rows]


def _turns(prompt: Prompt) -> list[Turn]:
    """All messages before the answer: the system's, shots, the conversation's own."""
    own = [*(prompt.turns or ()), Turn("user", prompt.text)]
    system = [turn for turn in own[:1] if turn.role == "system"]
    return [*system, *_shown(prompt), *own[len(system) :]]


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with the system's message at the beginning of the user's first one."""
    if not turns or turns[0].role != "system":
        return list(turns)
    said, *others = turns
    asked = [turn.content for turn in others[:1] if turn.role == "user"]
    return [Turn("user", "\n\n".join([said.content, *asked])), *others[len(asked) :]]


def _shown(prompt: Prompt) -> Iterator[Turn]:
    """The turns of shots, none of which is learned."""
    for shot in prompt.shots:
        turns = _turns(shot.prompt)
        yield from (Turn(turn.role, turn.content) for turn in turns if turn.role != "system")
        yield Turn("assistant", shot.target)


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
