"""raypath: from whole-slide images to a verdict on pretraining, on Ray.

The floors, lowest first: `config` and `errors`; `slides`, `models`, `tracking`; `data` and `objectives`; `benchmarks` and
`training`; `protocols`; `sweep` and `study`; `cli`. A module imports from lower floors and its own folder only.
"""

__version__ = "0.1.0"
