"""Which commits a store retains, and finding them by txid, name or time."""
