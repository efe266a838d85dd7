"""The scheduling controller: objects become engine deltas, plans become binds, evictions and reasons."""
