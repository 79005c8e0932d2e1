"""Rules for the values of a config's leaves: a test, and what it expects in words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A rule for one value.

    Attributes:
        test: value -> whether it is allowed.
        expected: the allowed values in words, to follow "expected".
        names: the allowed names, to suggest the nearest one; () if it has none.
    """

    test: Callable[[Any], bool]
    expected: str
    names: tuple[str, ...] = ()

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value; None if it is allowed."""
        if self.test(value):
            return None
        text = f"got {value!r:.200}, expected {self.expected}"
        near = difflib.get_close_matches(str(value), self.names, n=1)
        return f"{text}; did you mean {near[0]!r}?" if near else text


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _range(low: Any, high: Any, what: str) -> str:
    return f"{what} from {low} to {high}" if high is not None else f"{what} >= {low}"


def whole(low: int = 0, high: int | None = None) -> Rule:
    """A whole number from `low` to `high`, both included."""

    def test(value: Any) -> bool:
        return _is_whole(value) and low <= value and (high is None or value <= high)

    return Rule(test, _range(low, high, "a whole number"))


def number(low: float = 0.0, high: float | None = None, *, infinite=False) -> Rule:
    """A number from `low` to `high`, both included; infinite only if so chosen."""

    def test(value: Any) -> bool:
        if not (_is_whole(value) or isinstance(value, float)) or math.isnan(value):
            return False
        if math.isinf(value) and not infinite:
            return False
        return low <= value and (high is None or value <= high)

    return Rule(test, _range(low, high, "a number") + (" or inf" if infinite else ""))


def positive(*, below: float | None = None) -> Rule:
    """A finite number above 0, and below a limit if there is one."""

    def test(value: Any) -> bool:
        return number().test(value) and value > 0 and (below is None or value < below)

    return Rule(test, "a number above 0" + (f" and below {below}" if below else ""))


def rate() -> Rule:
    """A number from 0 to below 1, such as a rate of dropout."""
    return Rule(lambda v: number(0, 1).test(v) and v < 1, "a number >= 0 and below 1")


def one_of(names: Iterable[str]) -> Rule:
    """One of some names."""
    known = tuple(sorted(names))
    return Rule(
        lambda v: isinstance(v, str) and v in known,
        f"one of {', '.join(known)}",
        known,
    )


def flag() -> Rule:
    """True or False."""
    return Rule(lambda v: isinstance(v, bool), "True or False")


def text() -> Rule:
    """Text that is not empty and has no NUL."""
    return Rule(
        lambda v: isinstance(v, str) and bool(v.strip()) and "\0" not in v,
        "text that is not empty",
    )


def pattern() -> Rule:
    """A regular expression."""

    def test(value: Any) -> bool:
        try:
            return isinstance(value, str) and re.compile(value) is not None
        except (re.error, RecursionError, OverflowError):
            return False

    return Rule(test, "a regular expression")


def or_none(rule: Rule) -> Rule:
    """A rule's values, or None."""
    return Rule(
        lambda v: v is None or rule.test(v), f"{rule.expected}, or None", rule.names
    )


def either(first: Rule, second: Rule) -> Rule:
    """A value that one of two rules allows."""
    return Rule(
        lambda v: first.test(v) or second.test(v),
        f"{first.expected}, or {second.expected}",
        first.names + second.names,
    )


def many(
    rule: Rule, *, count: int | None = None, least: int = 0, distinct: bool = False
) -> Rule:
    """A tuple of values.

    Args:
        rule: of each value.
        count: number of values; None: any.
        least: minimum number of values.
        distinct: whether no value may occur twice.
    """

    def test(value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and (count is None or len(value) == count)
            and len(value) >= least
            and all(rule.test(one) for one in value)
            and not (distinct and len(set(value)) < len(value))
        )

    size = f"{count} values" if count else f"at least {least} values" * bool(least)
    each = f"{size or 'values'}, each {rule.expected}"
    return Rule(test, f"{'distinct ' * distinct}{each}", rule.names)


def interval(rule: Rule) -> Rule:
    """Two values, the first not above the second."""

    def test(value: Any) -> bool:
        return many(rule, count=2).test(value) and value[0] <= value[1]

    return Rule(test, f"two values in ascending order, each {rule.expected}")
