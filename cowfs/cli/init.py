"""``cowfs init``."""

from __future__ import annotations

from pathlib import Path

import click

from cowfs.cli.arguments import DATABASE, parse_json, read_text
from cowfs.errors import SchemaError
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
def init(database: Path, schema_file: Path | None, strict: bool) -> None:
    """Make an empty database in the new (or empty) directory DB."""
    schema = {} if schema_file is None else parse_json(read_text(schema_file), str(schema_file))
    if not isinstance(schema, dict):
        raise SchemaError(f"{schema_file}: a schema is a map from attributes to their properties")
    with Store.create(database, schema, strict=strict) as store:
        click.echo(f"{database}: a new database with {len(store.schema)} attributes")
