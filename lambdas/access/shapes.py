"""The shapes of JSON objects: which keys have values of which types. Pure.

The authorizer parses up to tens of thousands of objects with a fourteenth of a core, so the types of all
values of an object are compared at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Final

from lambdas.channel.errors import InvalidDocumentError

NULL: Final = type(None)
_NOTHING: Final[Mapping[str, Any]] = {}
_MISSING: Final = object()


class Shape:
    """The known keys of an object, at least two, and the types of their values.

    Keys without a default must be present, even if their value may be null: a misspelt restriction is then an
    error rather than no restriction.
    """

    __slots__ = ("_defaults", "_get", "_legal", "_types")

    def __init__(self, types: Mapping[str, tuple[type, ...]], **defaults: object) -> None:
        self._types = types
        self._defaults = defaults
        self._get = itemgetter(*types)
        self._legal = frozenset(itertools.product(*types.values()))

    def read(self, raw: object) -> tuple[Any, ...]:
        """Return the values of the known keys, in the order in which the shape names them.

        Raises:
            InvalidDocumentError: it is not an object, or a value is missing or of another type.
        """
        if type(raw) is not dict:
            raise InvalidDocumentError("not an object")
        try:
            values: tuple[Any, ...] = self._get(raw)
        except KeyError:
            values = tuple(raw.get(key, self._defaults.get(key, _MISSING)) for key in self._types)
        if tuple(map(type, values)) not in self._legal:
            wrong = next(key for key, value in zip(self._types, values, strict=True) if not self._fits(key, value))
            raise InvalidDocumentError(f"{wrong} is not of type {self._types[wrong][0].__name__}")
        return values

    def rest(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values of unknown keys."""
        if raw.keys() <= self._types.keys():
            return _NOTHING
        return {key: value for key, value in raw.items() if key not in self._types}

    def _fits(self, key: str, value: object) -> bool:
        return type(value) in self._types[key]
