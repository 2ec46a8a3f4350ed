"""A full disk: one line, nothing lost, and on with it when there is room again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from cowfs import Store
from tests.support.commands import COWFS, in_private_mounts

_LINES = 400


def test_an_import_into_a_full_disk_stops_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    lines = [json.dumps({":note/number": number, ":note/text": f"{number} " * 3000}) + "\n" for number in range(_LINES)]
    (tmp_path / "notes.jsonl").write_text("".join(lines))
    script = """
        input=$1; shift
        mount -t tmpfs -o size=3m tmpfs /mnt
        "$@" init /mnt/db >&2
        for round in full again; do
            code=0; line=$("$@" import --batch 20 --from-line "${next:-1}" /mnt/db "$input" 2>&1 >/dev/null) || code=$?
            line=$(tail -1 <<<"$line")
            next=$(sed -n 's/.*--from-line \\([0-9]*\\).*/\\1/p' <<<"$line")
            echo "$round|$code|$line|$("$@" check /mnt/db)|$("$@" export /mnt/db | wc -l)"
        done
        mount -o remount,size=64m /mnt
        "$@" import --batch 20 --from-line "$next" /mnt/db "$input" >&2
        echo "room|0||$("$@" check /mnt/db)|$("$@" export /mnt/db | wc -l)"
        """
    result = in_private_mounts(script, tmp_path / "notes.jsonl", *COWFS)
    full, again, room = [line.split("|") for line in result.stdout.splitlines()]
    for _round, code, line, check, count in (full, again):
        assert code == "1"
        assert "no space left" in line
        assert line.startswith("cowfs: ")
        assert "/mnt/db: ok (" in check
        match = re.search(r"--from-line (\d+)", line)
        assert match is not None
        assert int(match[1]) == int(count) + 1
    assert 0 < int(full[4]) <= int(again[4]) < _LINES
    assert "/mnt/db: ok (" in room[3]
    assert int(room[4]) == _LINES


_OVERWRITER = """
import sys
from pathlib import Path
from cowfs import Store
with Store.open(Path(sys.argv[1])) as store:
    entity = store.transact([{":db/id": -1, ":note/text": "first"}]).tempids[-1]
    store.transact([{":db/id": -1, ":note/text": "x" * 200_000}])
    named = store.name("kept", "test").txid if sys.argv[2] == "named" else 0
    for number in range(400):
        try:
            store.transact([[":db/add", entity, ":note/text", f"text {number}"]])
        except Exception as error:
            print(number, named, error, sep="|")
            break
    else:
        print(number, named, "done", sep="|")
"""


def _overwrite_on_a_small_disk(directory: Path, kind: str) -> tuple[list[str], dict[str, Any], str, str]:
    """Overwrite one value 400 times where there is room for 100 commits; return what came of it."""
    (directory / "overwriter.py").write_text(_OVERWRITER)
    script = """
        python=$1; program=$2; kind=$3; shift 3
        mount -t tmpfs -o size=6m tmpfs /mnt
        "$@" init /mnt/db >&2
        "$python" "$program" /mnt/db "$kind" 2>"$program.said"
        "$@" status --json /mnt/db | tr -d '\\n'; echo
        "$@" check /mnt/db
        head -1 "$program.said"
        """
    result = in_private_mounts(script, sys.executable, directory / "overwriter.py", kind, *COWFS)
    written, status, check, *warnings = result.stdout.splitlines()
    return written.split("|"), json.loads(status), check, "".join(warnings)


def test_on_a_full_disk_history_is_given_up_and_the_writer_goes_on(tmp_path: Path) -> None:
    (last, _named, how), status, check, warning = _overwrite_on_a_small_disk(tmp_path, "plain")
    assert (last, how) == ("399", "done")
    assert "/mnt/db: ok (" in check
    assert warning.startswith("the disk is full: commits 1 to "), "it is said"
    history = status["history"]
    assert {event["kind"] for event in history["events"]} == {"full"}, "and remembered"
    assert history["oldest"]["txid"] > 100
    assert history["newest"]["txid"] == status["txid"]


def test_on_a_full_disk_a_named_snapshot_is_kept_and_the_error_is_one_line(tmp_path: Path) -> None:
    (last, named, how), status, check, _warning = _overwrite_on_a_small_disk(tmp_path, "named")
    assert int(last) < 399
    assert "no space left" in how
    assert "/mnt/db: ok (" in check
    assert status["history"]["oldest"]["txid"] == int(named)


def test_on_a_disk_without_a_free_byte_a_name_is_deleted_and_a_bound_lowered(tmp_path: Path) -> None:
    (tmp_path / "overwriter.py").write_text(_OVERWRITER)
    script = """
        python=$1; program=$2; said=$3; shift 3
        mount -t tmpfs -o size=6m tmpfs /mnt
        "$@" init /mnt/db >&2
        "$python" "$program" /mnt/db named >&2
        for size in 4096 1; do dd if=/dev/zero "of=/mnt/filler$size" "bs=$size" >&2 2>/dev/null || true; done
        try() { local code=0; "$@" >"$said" 2>&1 || code=$?; echo "$code|$(tail -1 "$said")"; }
        echo "$(df --output=avail /mnt | tail -1)"
        try "$@" transact /mnt/db - <<<'[{":note/text": "more"}]'
        "$@" status --json /mnt/db | tr -d '\\n'; echo
        try "$@" snapshot delete /mnt/db kept
        try "$@" transact /mnt/db - <<<'[{":note/text": "more"}]'
        try "$@" retain /mnt/db --commits 3 --json
        "$@" status --json /mnt/db | tr -d '\\n'; echo
        "$@" check /mnt/db
        """
    arguments = (sys.executable, tmp_path / "overwriter.py", tmp_path / "said", *COWFS)
    lines = in_private_mounts(script, *arguments).stdout.splitlines()
    room, stuck, before, deleted, written, lowered, after, check = lines
    assert room.strip() == "0"
    assert stuck.startswith("1|cowfs: /mnt/db: no space left on the filesystem; nothing of this transaction was committed;")
    assert stuck.endswith("; history cannot be given up: snapshot 'kept' holds txid 3 and what came after it")
    (snapshot,) = json.loads(before)["history"]["snapshots"]
    assert snapshot["bytes"] == 0, "within the bounds"
    assert snapshot["bytes_on_full_disk"] == json.loads(before)["history"]["bytes"] > 3_000_000
    assert deleted.startswith("0|kept: deleted, was txid 3")
    assert written.startswith("0|txid ")
    assert lowered == "0|}"
    history = json.loads(after)["history"]
    assert (history["commits"], history["snapshots"]) == (4, [])
    assert {event["kind"] for event in history["events"]} == {"full"}
    assert json.loads(after)["size"]["free_pages"] > 500
    assert "/mnt/db: ok (" in check


def test_a_restore_onto_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    script = """
        directory=$1; shift
        mount -t tmpfs -o size=1m tmpfs /mnt
        for option in --no-check ""; do
            code=0; "$@" restore $option "$directory/db" /mnt/new >/dev/null 2>"$directory/errors" || code=$?
            echo "$code|$(cat "$directory/errors")|$(ls -A /mnt)"
        done
        """
    with Store.create(tmp_path / "db", durability="none") as store:
        for number in range(6):
            store.transact([{":note/text": f"{number:0300000}"}])
    result = in_private_mounts(script, tmp_path, *COWFS)
    lines = [line.split("|") for line in result.stdout.splitlines()]
    assert len(lines) == 2
    for code, line, left in lines:
        assert (code, left) == ("1", "")
        assert "no space left" in line
