"""`python -m entrostat`."""

from entrostat.cli import main

main()
