"""cowfs: a datom store in LMDB whose every commit is a directory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cowfs.errors import CowfsError

if TYPE_CHECKING:
    from cowfs.backup.restore import Restored, restore
    from cowfs.backup.verify import CheckReport, check
    from cowfs.store.model.datom import Datom
    from cowfs.store.model.encoding import Ref, Value
    from cowfs.store.model.schema import Attribute, Schema
    from cowfs.store.read.db import Db, schema_json
    from cowfs.store.read.log import TxRow
    from cowfs.store.store import Store
    from cowfs.store.store import create_store as create
    from cowfs.store.store import open_store as open
    from cowfs.store.tx.revert import RevertReport
    from cowfs.store.tx.transaction import TxReport

__all__ = [
    "Attribute",
    "CheckReport",
    "CowfsError",
    "Datom",
    "Db",
    "Ref",
    "Restored",
    "RevertReport",
    "Schema",
    "Store",
    "TxReport",
    "TxRow",
    "Value",
    "check",
    "create",
    "open",
    "restore",
    "schema_json",
]
__version__ = "0.1.0"

_HOMES = {
    "Attribute": "store.model.schema",
    "CheckReport": "backup.verify",
    "Datom": "store.model.datom",
    "Db": "store.read.db",
    "Ref": "store.model.encoding",
    "Restored": "backup.restore",
    "RevertReport": "store.tx.revert",
    "Schema": "store.model.schema",
    "Store": "store.store",
    "TxReport": "store.tx.transaction",
    "TxRow": "store.read.log",
    "Value": "store.model.encoding",
    "check": "backup.verify",
    "create": "store.store",
    "open": "store.store",
    "restore": "backup.restore",
    "schema_json": "store.read.db",
}
_OTHER_NAMES = {"create": "create_store", "open": "open_store"}


def __getattr__(name: str) -> Any:
    """Load what is asked for only now: a command installs its signal handlers before it loads anything else."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"cowfs.{_HOMES[name]}")
    value = globals()[name] = getattr(home, _OTHER_NAMES.get(name, name))
    return value
