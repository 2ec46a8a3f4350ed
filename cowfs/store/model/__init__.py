"""What a datom, a value and an attribute are, and how they are encoded."""
