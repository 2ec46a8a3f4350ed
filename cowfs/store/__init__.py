"""Datoms: schema, values, indexes, transactions, the log, and ``Db``, the database as an immutable value.

This room knows no paths in a mount, no stat and no errno. It reads through ``pages.reader.Reader`` and writes through
``pages.env.WriteTxn``. To read it, begin with ``layout`` (what lies in which named database) and ``encoding`` (how a value
becomes bytes). A transaction then goes through ``forms`` (data into operations), ``nodes`` and ``identity`` (who is who),
``changeset`` (what changes in the end) and ``transaction`` (which writes it); a ``Db`` reads ``indexes``.
"""
