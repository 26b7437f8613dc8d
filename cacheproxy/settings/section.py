"""What all sections of the settings have in common, and which settings change without a restart."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

T = TypeVar("T")


class _Reloadable:
    """Marks a setting that a running server takes from the file anew."""


RELOADABLE = _Reloadable()

Live = Annotated[T, RELOADABLE]
"""The type of a setting that a reload changes; what is not marked needs a restart."""


def is_live(field: FieldInfo) -> bool:
    """Return whether a reload changes a setting."""
    return any(isinstance(mark, _Reloadable) for mark in field.metadata)


class Section(BaseModel):
    """A section: unknown keys are mistakes, and nothing changes in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
