"""Benchmarks: programs that start the server and its peers, put load on them, and print a table. See README.md."""

from typing import Final

SECRET: Final = "a secret for benchmarks on loopback, and nothing else"
"""Signs the tokens of every server that verifies tokens."""
