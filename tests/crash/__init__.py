"""Killed processes, damaged files and full disks."""
