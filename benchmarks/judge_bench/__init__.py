"""Parts of `benchmarks/judging.py`."""
