"""Running untrusted code and judging what it answers."""
