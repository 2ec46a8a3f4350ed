"""Checking a database, and making one from a backup."""
