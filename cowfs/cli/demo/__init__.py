"""``cowfs demo``: a store of the world's cities, written while it is mounted and backed up."""
