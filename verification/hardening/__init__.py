"""Faults from outside: killed runs, full disks, hostile files. ``python -m verification.hardening --help``."""
