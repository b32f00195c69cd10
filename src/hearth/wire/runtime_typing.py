"""What the wire and the agent use of ``typing``: the real thing for type checkers, stand-ins for the interpreter.

``typing`` and the code its named tuples generate were some 80 ms of the guest's imports under TCG, see
docs/decisions/agent-start.md. Names that occur in annotations only are never looked up, as every module here
defers its annotations.
"""

from __future__ import annotations

from operator import itemgetter

TYPE_CHECKING = False  # type checkers take a variable of this name for true

if TYPE_CHECKING:
    from typing import IO as IO
    from typing import Any as Any
    from typing import NamedTuple as NamedTuple
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import Self as Self
    from typing import TypeVar as TypeVar
    from typing import cast as cast
    from typing import dataclass_transform as dataclass_transform
else:
    IO = list  # only to be subscribed
    Any = NoReturn = Self = None
    Protocol = object

    def TypeVar(name: str, **_: object) -> str:  # noqa: N802 -- as it is named there
        """Give the name."""
        return name

    def cast(_: object, value: object) -> object:
        """Give ``value``."""
        return value

    def dataclass_transform(**_: object) -> object:
        """Give a decorator that does nothing."""
        return lambda cls: cls

    class NamedTuple(tuple):
        """A tuple with an attribute for each annotation of the subclass; made by position, with defaults at the end."""

        __slots__ = ()

        def __init_subclass__(cls) -> None:
            cls._fields = tuple(cls.__annotations__)
            cls._defaults = tuple(vars(cls)[name] for name in cls._fields if name in vars(cls))
            for index, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(index)))

        def __new__(cls, *values: object) -> object:
            """Give the tuple.

            Raises:
                TypeError: too many or too few items.
            """
            missing = len(cls._fields) - len(values)
            if not 0 <= missing <= len(cls._defaults):
                raise TypeError(f"{cls.__name__} of {len(values)} items, not {len(cls._fields)}")
            return tuple.__new__(cls, values + cls._defaults[-missing:] if missing else values)

        _make = classmethod(tuple.__new__)

        def __repr__(self) -> str:
            items = ", ".join(f"{name}={item!r}" for name, item in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({items})"
