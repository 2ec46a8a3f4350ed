"""Turning JSON forms into the pages of one commit."""
