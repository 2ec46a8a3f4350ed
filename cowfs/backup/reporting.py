"""``Progress``: how long work reports how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Called with how much more is done, in the unit of the length."""

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Called with what is being done, a word or two, and its length; the work is done within the context."""


@contextmanager
def silent(_label: str, _length: int) -> Iterator[Advance]:
    """Report nothing."""
    yield lambda _done: None
