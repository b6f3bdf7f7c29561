"""Models: quality, drift, what came true, comparison."""
