"""The tools that people use on a mount and on databases: rsync, tar, cp, LMDB's own, and the cowfs commands."""
