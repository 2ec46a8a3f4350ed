"""Arguments and options that several commands share, and JSON as they read and print it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from math import isinf
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from cowfs.cli.output import echo_document
from cowfs.errors import InputError
from cowfs.store.history.retention import Retention
from cowfs.units import parse_bytes, parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])
_NOT_ZERO = re.compile(r"[-0.]*[1-9]")  # the text of a number other than 0 begins so


def duration(text: str) -> int:
    """Return the seconds that an option says; for ``type``."""
    return _number(parse_duration, text)


def amount(text: str) -> int:
    """Return the bytes that an option says; for ``type``."""
    return _number(parse_bytes, text)


DATABASE = click.argument("database", metavar="DB", type=click.Path(readable=False, path_type=Path))
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be done, without doing it.")
DRY_RUN_NOTE = "  (dry run: nothing was done)"
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def bounds_options(command: Command) -> Command:
    """Give a command the options ``commits``, ``age`` and ``size``, for ``changed``; each None when it is not given."""
    for option in (
        click.option("--bytes", "size", metavar="AMOUNT", type=amount, help="Keep at most this much history, e.g. 2GiB."),
        click.option("--age", metavar="DURATION", type=duration, help="Keep commits for this long, e.g. 7d."),
        click.option("--commits", metavar="N", type=click.IntRange(0), help="Keep this many commits behind the newest."),
    ):
        command = option(command)
    return command


def changed(bounds: Retention, commits: int | None, age: int | None, size: int | None) -> Retention:
    """Return ``bounds`` with those that are given."""
    given = {"commits": commits, "age": age, "size": size}
    try:
        return replace(bounds, **{name: value for name, value in given.items() if value is not None})
    except InputError as error:
        raise click.BadParameter(str(error)) from None


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
        raise InputError(f"{shown_path(path)}: not valid UTF-8 ({error.reason} at byte {error.start})") from None


def shown_path(path: Path) -> str:
    """Return the name of an input file in messages."""
    return "standard input" if str(path) == "-" else str(path)


def print_json(document: Any) -> None:
    """Print one JSON document, with sorted keys."""
    echo_document(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False))


def _number(parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError(f"{text} is too large for a double")
    if number == 0 and _NOT_ZERO.match(text):
        raise ValueError(f"{text} is too near to 0 for a double")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f'{text} is no JSON number; for a double write it as a string, "{text}"')
