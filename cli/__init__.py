"""The command line, and a whole installation on one machine."""
