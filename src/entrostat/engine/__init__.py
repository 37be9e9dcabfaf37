"""The embedded trainer for one machine."""
