"""The store, tested without a mount."""
