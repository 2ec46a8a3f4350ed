"""The mount: views as a FUSE filesystem, and its life from ``mount`` to ``umount``.

The only room that imports fuse, and the only one that knows processes, handles and errnos.
"""
