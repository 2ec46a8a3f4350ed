"""Holding roots and writing: the only room that imports lmdb, and that opens lock.mdb."""
