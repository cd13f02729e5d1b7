"""Recipes: functions that return a complete config. Their docstrings say what each reproduces and what to expect.

A new recipe is one function and one line in a table below.
"""

from recipes.demo import demo
from recipes.tiles import simclr_tiles

PRETRAINING = {"demo": demo, "simclr_tiles": simclr_tiles}
