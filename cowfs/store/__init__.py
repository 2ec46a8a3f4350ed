"""Datoms: schema, values, indexes, transactions, the log, and ``Db``, the database as an immutable value.

This room knows no paths in a mount, no stat and no errno. It reads through ``pages.reader.Reader`` and writes through
``pages.env.WriteTxn``; ``layout`` documents what lies in which named database, ``encoding`` how a value becomes bytes.
"""
