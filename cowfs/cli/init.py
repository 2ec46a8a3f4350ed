"""``cowfs init``."""

from __future__ import annotations

from pathlib import Path

import click

from cowfs.cli.arguments import DATABASE, bounds_options, changed, parse_json, read_text
from cowfs.cli.output import echo, reporting
from cowfs.errors import SchemaError
from cowfs.store.history.retention import DEFAULT_RETENTION
from cowfs.store.store import Store


@click.command()
@DATABASE
@click.option(
    "--schema",
    "schema_file",
    type=click.Path(readable=False, path_type=Path, allow_dash=True),
    help="JSON file with the attributes.",
)
@click.option("--strict", is_flag=True, help="Refuse attributes that the schema does not declare.")
@bounds_options
def init(
    database: Path, schema_file: Path | None, strict: bool, commits: int | None, age: int | None, size: int | None
) -> None:
    """Make an empty database in a new or empty directory.

    DB may also be a database whose creation was interrupted: it is completed.

    The bounds limit how much history is kept: a commit is given up when any of them is exceeded, by default 10,000
    commits, 7 days or 1 GiB. `cowfs retain` changes them.
    """
    schema = {} if schema_file is None else parse_json(read_text(schema_file), str(schema_file))
    if not isinstance(schema, dict):
        raise SchemaError(f"{schema_file}: a schema is a map from attributes to their properties")
    retention = changed(DEFAULT_RETENTION, commits, age, size)
    with Store.create(database, schema, strict=strict, retention=retention) as store:
        attributes = len(store.schema)
    with reporting(f"{database} is made"):
        echo(f"{database}: a new database with {attributes} attributes")
