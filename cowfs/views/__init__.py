"""What a root looks like as names and bytes: plain objects, no FUSE, no threads, no processes.

``Tree`` turns a path into a ``Directory`` or a ``File``; ``History`` keeps the commits that have a directory; ``Snapshot``
is one of them. ``mount`` adapts these to FUSE and adds what only it knows: who is asking.
"""
