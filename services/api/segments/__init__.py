"""Segments: sizes, values, who moved."""
