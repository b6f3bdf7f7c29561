"""The prediction API: what-if predictions, customers, segments, models and a live stream over HTTP."""
