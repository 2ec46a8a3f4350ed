"""``open_commits``: the commits of an environment, whichever kind it is of."""

from __future__ import annotations

from cowfs.commits.commits import Commits
from cowfs.commits.observed import ObservedCommits
from cowfs.commits.retained import RetainedCommits
from cowfs.engine.env import Env
from cowfs.store.read.db import store_at


def open_commits(env: Env, keep: int) -> Commits:
    """Return the history of an environment; ``keep`` is for one that is no store. Raises what reading it raises."""
    with env.hold() as hold:
        store = store_at(hold, hold.root.txnid)
    return ObservedCommits(env, keep) if store is None else RetainedCommits(env)
