"""The base of every error of this project, so that one `except` catches them all."""

from __future__ import annotations


class EntrostatError(Exception):
    """Something that a user can mend; the message names file or field, value, allowed range and remedy."""
