"""The command line, a file a group of commands."""

from entrostat.cli.app import app, main

__all__ = ["app", "main"]
