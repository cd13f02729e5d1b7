"""From a manifest of slides to a stream of tiles in an order that is computed, never left to chance."""
