"""Controllers: watch objects, compare wish and world, act."""
