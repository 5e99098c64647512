"""What docs/benchmarks.md quotes, one command for each question."""
