"""One file a host trainer."""
