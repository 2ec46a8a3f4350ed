"""The mount itself: its life, its answers to every call, and its operations one by one."""
