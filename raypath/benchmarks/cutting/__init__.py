"""Samples cut out of larger annotated images."""
