"""A full disk: one line, nothing lost, and on with it when there is room again."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.commands import COWFS, in_private_mounts

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


def test_a_restore_onto_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    script = """
        directory=$1; shift
        "$@" init "$directory/db" >&2
        for n in 1 2 3 4 5 6; do
            printf '[{":note/text": "%0300000d"}]' $n | "$@" transact "$directory/db" >&2
        done
        mount -t tmpfs -o size=1m tmpfs /mnt
        for option in --no-check ""; do
            code=0; "$@" restore $option "$directory/db" /mnt/new >/dev/null 2>"$directory/errors" || code=$?
            echo "$code|$(cat "$directory/errors")|$(ls -A /mnt)"
        done
        """
    result = in_private_mounts(script, tmp_path, *COWFS)
    lines = [line.split("|") for line in result.stdout.splitlines()]
    assert len(lines) == 2
    for code, line, left in lines:
        assert (code, left) == ("1", "")
        assert "no space left" in line
