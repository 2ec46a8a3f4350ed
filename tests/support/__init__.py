"""What the tests share: commands, mounts, other writers, failures, and models of a disk."""
