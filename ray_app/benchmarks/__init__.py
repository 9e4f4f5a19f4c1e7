"""Benchmarks of judges: loaders over local files, fsspec URIs and hub ids, all giving one kind of row."""

from ray_app.benchmarks.base import Benchmark, BestOfRow, Faulty, RatedRow
from ray_app.benchmarks.registry import BENCHMARKS, load_benchmark

__all__ = ["BENCHMARKS", "Benchmark", "BestOfRow", "Faulty", "RatedRow", "load_benchmark"]
