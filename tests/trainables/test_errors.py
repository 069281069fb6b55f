"""Input errors: all faults at once, with a suggestion for a near miss."""

from __future__ import annotations

from trainables.errors import InputError, did_you_mean


def test_all_messages_are_kept_apart_and_shown_together() -> None:
    error = InputError(["a: wrong", "b: wrong"])
    assert error.messages == ("a: wrong", "b: wrong")
    assert str(error) == "a: wrong\nb: wrong"


def test_a_fault_that_is_met_twice_is_told_once() -> None:
    assert InputError(["b: wrong", "a: wrong", "b: wrong"]).messages == ("b: wrong", "a: wrong")


def test_one_message_may_be_given_as_text() -> None:
    assert InputError("a: wrong").messages == ("a: wrong",)


def test_a_near_miss_is_guessed() -> None:
    assert did_you_mean("rnak", ["rank", "alpha"]) == " Did you mean 'rank'?"


def test_otherwise_all_that_is_allowed_is_listed() -> None:
    assert did_you_mean("zzz", ["rank", "alpha"]) == " Allowed: alpha, rank."


def test_what_was_given_may_be_anything() -> None:
    assert did_you_mean(None, ["rank"]) == " Allowed: rank."
    assert did_you_mean([1], ["rank"]) == " Allowed: rank."
