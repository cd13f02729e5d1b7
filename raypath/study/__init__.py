"""Studies: a matrix of encoders and benchmarks, and what may be concluded from it."""
