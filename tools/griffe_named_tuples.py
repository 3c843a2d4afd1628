"""Lets the interface pages show named tuples as they are made: an extension of griffe, which mkdocs.yml names."""

from __future__ import annotations

from typing import Any

import griffe


class NamedTuples(griffe.Extension):
    """Gives each NamedTuple the constructor that Python gives it, so that its Args belong to something."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Add the constructor."""
        if "NamedTuple" not in [str(base) for base in cls.bases] or "__init__" in cls.members:
            return
        fields = [member for member in cls.members.values() if isinstance(member, griffe.Attribute)]
        parameters = [
            griffe.Parameter(
                field.name,
                annotation=field.annotation,
                kind=griffe.ParameterKind.positional_or_keyword,
                default=field.value,
            )
            for field in fields
        ]
        first = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(first, *parameters)))
