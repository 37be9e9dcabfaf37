"""The run folder and the statistics of runs."""
