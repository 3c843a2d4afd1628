"""Json that another process wrote, taken apart with suspicion; standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from .errors import InputError

FORMAT = 1
"""Of requests and parts."""

_LONGEST_NAME = 400
_LARGEST = 1e30


def strict_json(text: str) -> Any:
    """Json as `json.dumps` writes it: no NaN or infinity, no text that cannot be written, no depth that ends Python.

    Raises:
        ValueError: for anything else.
    """
    try:
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return record


def is_number(value: Any) -> bool:
    """Whether it is a number of a size that images have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def is_list_of(value: Any, count: int) -> TypeGuard[list[Any]]:
    """Whether it is a list of so many things."""
    return isinstance(value, list) and len(value) == count


def is_path(value: Any) -> bool:
    """Whether it is a text that the system takes for a path."""
    return isinstance(value, str) and "\0" not in value


class Record:
    """A json object whose entries are checked as they are taken out; what is odd is an `InputError` that names it."""

    def __init__(self, text: str, what: str) -> None:
        try:
            record = strict_json(text)
        except ValueError as error:
            raise InputError(f"{what} is no json; start the job again.") from error
        self._take(record, what)
        if self.entries.get("format") != FORMAT:
            raise InputError(f"{what} has another format than {FORMAT}; restart Slicer.")

    def _take(self, record: Any, what: str) -> None:
        if not isinstance(record, dict):
            raise InputError(f"{what} is no json object; start the job again.")
        self.entries, self.what = record, what

    def holds_only(self, kind: type, *more: str) -> None:
        """Refuse entries that are no fields of a dataclass: both sides are of one version, so nobody needs them."""
        known = {f.name for f in fields(kind)} | set(more)
        unknown = next((key for key in self.entries if key not in known), None)
        if unknown is not None:
            raise InputError(f"{self.what} has an entry that there is not, {unknown!r:.60}; restart Slicer.")

    def inner(self, key: str) -> Record:
        return self._of(self.entries.get(key), f"{self.what}: {key}")

    def inners(self, key: str) -> list[Record]:
        return [self._of(entry, f"{self.what}: {key}") for entry in self.of_type(key, list, [])]

    def _of(self, entry: Any, what: str) -> Record:
        record = Record.__new__(Record)
        record._take(entry, what)
        return record

    def of_type(self, key: str, kind: type | tuple[type, ...], default: Any) -> Any:
        value = self.entries.get(key, default)
        if not isinstance(value, kind):
            raise self.odd(key)
        return value

    def words(self, key: str) -> str:
        """A text that is there and not longer than names are."""
        value = self.entries.get(key)
        if not isinstance(value, str) or len(value) > _LONGEST_NAME:
            raise self.odd(key)
        return value

    def strings(self, key: str, is_usable: Callable[[Any], bool] = lambda value: isinstance(value, str)) -> list[str]:
        values = self.of_type(key, list, [])
        if not all(map(is_usable, values)):
            raise self.odd(key)
        return list(values)

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.entries.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.odd(key)
        return value

    def one_of(self, key: str, known: Sequence[str]) -> str:
        value = self.entries.get(key)
        if not isinstance(value, str) or value not in known:
            raise self.odd(key)
        return value

    def path(self, key: str) -> str | None:
        """A text that can name a file; None where there is none."""
        value = self.entries.get(key)
        if value is not None and not is_path(value):
            raise self.odd(key)
        return value

    def matrix(self, key: str, *, optional: bool = False) -> Any:
        value = self.entries.get(key)
        if value is None and optional:
            return None
        if not (is_list_of(value, 4) and all(is_list_of(row, 4) and all(map(is_number, row)) for row in value)):
            raise self.odd(key)
        return tuple(tuple(float(number) for number in row) for row in value)

    def grid(self, key: str) -> Any:
        """A matrix that places voxels in space: affine, and no axis without length."""
        *axes, last = matrix = self.matrix(key)
        (a, b, c, _), (d, e, f, _), (g, h, i, _) = axes
        if last != (0, 0, 0, 1) or not abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) > 0:
            raise self.odd(key)
        return matrix

    def point(self, key: str) -> tuple[float, ...] | None:
        value = self.entries.get(key)
        if value is not None and not (is_list_of(value, 3) and all(map(is_number, value))):
            raise self.odd(key)
        return None if value is None else tuple(float(number) for number in value)

    def limits(self, key: str) -> tuple[float | None, float | None]:
        value = self.entries.get(key)
        if not (is_list_of(value, 2) and all(v is None or is_number(v) for v in value)):
            raise self.odd(key)
        return value[0], value[1]

    def odd(self, key: str) -> InputError:
        return InputError(f"{self.what} has no usable '{key}'; start the job again.")
