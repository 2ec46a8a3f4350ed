"""``cowfs check``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cowfs.backup.verify import CheckReport
from cowfs.backup.verify import check as check_database
from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.cli.output import announce, complain, echo
from cowfs.cli.progress import progress_bar


@click.command()
@DATABASE
@AS_JSON
def check(database: Path, as_json: bool) -> None:
    """Verify every page and every datom of DB.

    DB may be a database that is being written, a backup, a directory of a mount, or any LMDB environment. Prints each
    finding, with its page. The exit code is 1 if there are any.
    """
    report = check_database(database, progress=progress_bar, on_finding=None if as_json else announce)
    if as_json:
        print_json(_document(report))
    elif report.ok:
        echo(f"{database}: ok ({report.pages} pages of {report.page_size} bytes; {_content_text(report)})")
    else:
        complain(f"{database}: damaged, {len(report.findings)} findings")
    sys.exit(0 if report.ok else 1)


def _document(report: CheckReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "findings": list(report.findings),
        "clock_went_back": list(report.clock_went_back),
        "txid": report.txid,
        "pages": report.pages,
        "datoms": report.datoms,
    }


def _content_text(report: CheckReport) -> str:
    if report.datoms is None:
        return "an LMDB environment, not a cowfs store"
    text = f"txid {report.txid}, {report.datoms} datoms"
    if report.clock_went_back:
        text += f"; instants out of order since txid {report.clock_went_back[0]}"
    return text
