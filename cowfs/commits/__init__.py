"""Which commits have a directory, shared by the mount and whatever else shows commits."""
