"""cowfs: a datom store in LMDB whose every commit is a directory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cowfs.errors import CowfsError

if TYPE_CHECKING:
    from cowfs.store.datom import Datom
    from cowfs.store.db import Db, schema_json
    from cowfs.store.encoding import Ref, Value
    from cowfs.store.log import TxRow
    from cowfs.store.revert import RevertReport
    from cowfs.store.schema import Attribute, Schema
    from cowfs.store.store import Store
    from cowfs.store.store import open_store as open
    from cowfs.store.transaction import TxReport

__all__ = [
    "Attribute",
    "CowfsError",
    "Datom",
    "Db",
    "Ref",
    "RevertReport",
    "Schema",
    "Store",
    "TxReport",
    "TxRow",
    "Value",
    "open",
    "schema_json",
]
__version__ = "0.1.0"

_HOMES = {
    "Attribute": "schema",
    "Datom": "datom",
    "Db": "db",
    "Ref": "encoding",
    "RevertReport": "revert",
    "Schema": "schema",
    "Store": "store",
    "TxReport": "transaction",
    "TxRow": "log",
    "Value": "encoding",
    "open": "store",
    "schema_json": "db",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for by then: a command takes the signals over before anything is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"cowfs.store.{_HOMES[name]}")
    value = globals()[name] = getattr(home, "open_store" if name == "open" else name)
    return value
