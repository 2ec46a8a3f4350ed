"""Whatever copies a directory of a commit while somebody writes gets exactly that commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import churn
from tests.support.copies import copy_and_check
from tests.support.mounted import mounted


@pytest.mark.parametrize(("kind", "copies", "pause"), [("plain", 12, 0.001), ("store-none", 12, 0.01), ("store", 12, 0.01)])
def test_copies_beside_a_writer_are_whole_transactions(tmp_path: Path, kind: str, copies: int, pause: float) -> None:
    churn.create(kind, tmp_path / "db")
    with (
        mounted(tmp_path / "db", tmp_path / "mnt") as mount,
        churn.writing(kind, tmp_path / "db", tmp_path / "journal", seed=copies, pause=pause) as writer,
    ):
        writer.wait_for(20)
        commits = copy_and_check(mount, tmp_path, writer, seed=copies, count=copies)
    assert commits > copies // 2, "the writer hardly wrote between the copies"
