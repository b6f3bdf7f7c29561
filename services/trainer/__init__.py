"""Trainer: from a shop's order history to a model bundle that the scorer loads."""
