"""Arguments and options that several commands share, and JSON as they read and print it."""

from __future__ import annotations

import json
from math import isinf
from pathlib import Path
from typing import Any, NoReturn

import click

from cowfs.errors import InputError

DATABASE = click.argument("database", metavar="DB", type=click.Path(readable=False, path_type=Path))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def parse_json(text: str, where: str) -> Any:
    """Parse JSON as the standard has it; raise ``InputError`` that begins with ``where`` otherwise."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: no valid JSON: {error}") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    except RecursionError:
        raise InputError(f"{where}: the JSON is nested too deeply") from None


def read_text(path: Path) -> str:
    """Return the content of a text file, or of standard input for ``-``; ``InputError`` when it cannot be read."""
    try:
        with click.open_file(str(path), encoding="utf-8") as file:
            return str(file.read())
    except OSError as error:
        raise InputError(f"{shown_path(path)}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{shown_path(path)}: no UTF-8 text ({error.reason} at byte {error.start})") from None


def shown_path(path: Path) -> str:
    """Return the name of an input file in messages."""
    return "standard input" if str(path) == "-" else str(path)


def print_json(document: Any) -> None:
    """Print one JSON document, with sorted keys."""
    click.echo(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False))


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError(f"{text} is too large for a double")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f'{text} is no JSON number; for a double write it as a string, "{text}"')
