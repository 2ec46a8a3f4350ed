"""``cowfs check``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.cli.output import announce, complain, echo
from cowfs.cli.progress import progress_bar
from cowfs.cli.verify import txid_at, verify
from cowfs.pages.reading import reading
from cowfs.store.steps import read_steps


@click.command()
@DATABASE
@AS_JSON
def check(database: Path, as_json: bool) -> None:
    """Check that every page and every datom of DB is where it should be.

    DB may be a database that is being written, a backup, a directory of a mount, or any LMDB environment. Exit code 1 when
    anything is wrong; every finding is printed, with its page.
    """
    findings = []
    with reading(database) as reader, progress_bar("pages", reader.root.pages) as progress:
        report = verify(reader, progress)
        for finding in report.findings:
            reader.require_steady()
            findings.append(finding)
            if not as_json:
                announce(finding)
        root = reader.root
        datoms = None if report.db is None else report.db.datom_count
        txid = txid_at(reader)
        went_back = [] if findings or report.db is None else list(read_steps(reader).txids)
    if as_json:
        document = {"ok": not findings, "findings": findings, "clock_went_back": went_back}
        print_json({**document, "txid": txid, "pages": root.pages, "datoms": datoms})
    elif not findings:
        what = "an LMDB environment, not a cowfs store" if report.db is None else f"txid {report.db.txid}, {datoms} datoms"
        if went_back:
            what += f"; instants out of order since txid {went_back[0]}"
        echo(f"{database}: ok ({root.pages} pages of {root.page_size} bytes; {what})")
    else:
        complain(f"{database}: damaged, {len(findings)} findings")
    sys.exit(1 if findings else 0)
