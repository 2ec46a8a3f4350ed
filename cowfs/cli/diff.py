"""``cowfs diff``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.cli.history import commit_named
from cowfs.cli.output import echo
from cowfs.store.history.opened import Opened, opened
from cowfs.store.model import clock
from cowfs.store.model.datom import Datom
from cowfs.store.model.values import to_json
from cowfs.store.read.db import Db
from cowfs.store.read.diff import diff as differences
from cowfs.store.read.diff import schema_diff
from cowfs.store.read.jsondatoms import changes_json

_LATEST = "latest"


@click.command()
@DATABASE
@click.argument("a", metavar="A")
@click.argument("b", metavar="[B]", default=_LATEST)
@AS_JSON
def diff(database: Path, a: str, b: str, as_json: bool) -> None:
    """Show what changed from commit A to commit B.

    A commit is a txid, a snapshot's name, an instant, a time ago like 5m, or latest, which is the default for B. A line is
    `+ entity attribute value` for a datom that only B has, `- entity attribute value` for one that only A has; changed
    definitions come first. A may be later than B. A datom that was retracted and asserted again is not a change.
    """
    now = clock.now()
    with opened(database, insist=True) as source, ExitStack() as commits:
        old = commits.enter_context(_commit(source, a, now, "A"))
        new = commits.enter_context(_commit(source, b, now, "B"))
        if as_json:
            print_json(_document(old, new))
            return
        for line in _lines(old, new):
            echo(line)


def _commit(source: Opened, text: str, now: datetime, argument: str) -> Db:
    return source.require_store() if text == _LATEST else commit_named(source, text, now, argument)


def _lines(old: Db, new: Db) -> Iterator[str]:
    for name, definitions in schema_diff(old, new).items():
        for sign, definition in zip("-+", definitions, strict=True):
            if definition is not None:
                yield f"{sign} schema {name} {json.dumps(definition, ensure_ascii=False)}"
    for datom in differences(old, new):
        yield datom_line(datom)


def datom_line(datom: Datom) -> str:
    """Return a datom for people: `+ entity attribute value` when it was asserted, `-` when it was retracted."""
    return f"{'+' if datom.added else '-'} {datom.e} {datom.a} {json.dumps(to_json(datom.v), ensure_ascii=False)}"


def _document(old: Db, new: Db) -> dict[str, Any]:
    definitions = schema_diff(old, new)
    return {
        "from": old.txid,
        "to": new.txid,
        **changes_json(differences(old, new)),
        "schema": {name: {"from": before, "to": after} for name, (before, after) in definitions.items()},
    }
