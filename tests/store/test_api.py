"""The public names of cowfs."""

from __future__ import annotations

import cowfs


def test_the_exported_names() -> None:
    assert sorted(cowfs.__all__) == [
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
    assert all(hasattr(cowfs, name) for name in cowfs.__all__)
