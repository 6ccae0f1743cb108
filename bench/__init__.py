"""Benchmarks: ratios against the notebook's own algorithm, measured in one run."""
