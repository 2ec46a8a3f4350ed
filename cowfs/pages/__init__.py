"""LMDB's file: meta pages, roots, trees, the freelist, images, and py-lmdb for writing and for the newest root.

This is the only room that imports lmdb and that knows byte offsets. Everybody above reads through ``Reader`` (get, scan)
and writes through ``WriteTxn``.
"""
