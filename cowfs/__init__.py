"""cowfs: a datom store in LMDB whose every commit is a directory."""

__version__ = "0.1.0"
