"""The command line, one file per group of commands."""

from entrostat.cli.app import app, main

__all__ = ["app", "main"]
