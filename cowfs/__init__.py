"""cowfs: a datom store in LMDB whose every commit is a directory."""

from cowfs.errors import CowfsError
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
