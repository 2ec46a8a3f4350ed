"""LMDB's file, read, held, imaged and checked: compared with py-lmdb, with models, and with every kind of damage."""
