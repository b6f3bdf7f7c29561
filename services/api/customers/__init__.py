"""Customers: one, lists, why, forgetting."""
