"""``Batches``: the transactions of one import, which gives up the state after each batch once the next one is committed.

Nobody asked for the states between the batches, so in a store that was empty before their pages are used again while the
import goes on. The history is one stretch of commits up to the newest, so where there was data before, a batch could only be
given up with the commits before the import: there the batches stay, within the bounds. They also stay from the moment on at
which another process commits.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from cowfs.engine.pace import Pace
from cowfs.engine.policy import HistoryView
from cowfs.pages.freelist import freed_pages
from cowfs.pages.reader import Reader
from cowfs.store.batchsize import Footprint
from cowfs.store.history.named import read_named
from cowfs.store.history.retention import StoreRetention
from cowfs.store.model.layout import read_state, txid_of
from cowfs.store.store import Store
from cowfs.store.tx.importids import ImportIds
from cowfs.store.tx.transaction import TxReport


class Batches:
    """One import into ``store``, as a context manager. With ``keep_history`` each batch is kept like any commit."""

    def __init__(self, store: Store, *, keep_history: bool = False) -> None:
        self._store = store
        self._usual = store.env.rootlog.policy
        self._policy = None if keep_history else _policy_of_batches(store)

    def __enter__(self) -> Batches:
        if self._policy is not None:
            self._store.env.rootlog.policy = self._policy
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._store.env.rootlog.policy = self._usual

    @property
    def given_up(self) -> bool:
        """Whether the state after each batch is given up, so that large batches cost space."""
        return self._policy is not None

    def footprint(self) -> Footprint:
        """Return the pages of the newest commit, and what it has copied."""
        with self._store.env.hold() as hold:
            newest, free = hold.root.txnid, freed_pages(hold, 0, hold.root.txnid)
            return Footprint(hold.root.pages - free, freed_pages(hold, newest - 1, newest))

    def transact(self, data: Any, *, ids: ImportIds | None = None) -> TxReport:
        """Do one batch as one transaction; takes and raises what ``Store.transact`` does."""
        report = self._store.transact(data, ids=ids)
        if self._policy is not None:
            self._policy.own = report.txid
        return report


class _BatchRetention(StoreRetention):
    """Keeps nothing before the newest commit, as long as that is ``own``: that no other process has committed since."""

    def __init__(self, page_size: int, own: int) -> None:
        super().__init__(page_size)
        self.own = own
        self._alone = True

    def horizon(self, view: HistoryView, made: int = 1) -> int:
        """Return the commit that is being made; the oldest within the bounds when this import is not alone any more."""
        return view.span.newest + 1 if self._is_alone(view) else super().horizon(view, made)

    def limit(self, view: HistoryView) -> int:
        """Return the commit that is being made: there are no names."""
        return view.span.newest + 1 if self._is_alone(view) else super().limit(view)

    def pace(self, reader: Reader) -> Pace:
        """Return that every commit takes a look."""
        return Pace(0, 0, 0) if self._alone else super().pace(reader)

    def _is_alone(self, view: HistoryView) -> bool:
        self._alone = self._alone and txid_of(view.span.newest, read_state(view.reader)) == self.own
        return self._alone


def _policy_of_batches(store: Store) -> _BatchRetention | None:
    """Return who gives up the batches; None where there is something before them that stays: data, or a name."""
    with store.env.hold() as hold:
        state = read_state(hold)
        if state.max_entity or state.datoms or read_named(hold):
            return None
        return _BatchRetention(store.env.file.page_size, txid_of(hold.root.txnid, state))
