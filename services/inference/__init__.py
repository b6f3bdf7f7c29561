"""What the scorer and the API share: a loaded model, the population's ranking, explanations, the profile model.

No service: has no process of its own, and must never talk to a server but to read the segment-thresholds topic.
"""
