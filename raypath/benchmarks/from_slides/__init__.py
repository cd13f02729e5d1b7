"""Benchmarks whose tiles are cut from slides when they are read: nothing is written but an index."""
