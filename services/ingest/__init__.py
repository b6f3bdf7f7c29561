"""Takes customer events from Kafka and HTTP, judges each of them, and writes the good ones to `orders`.

Every event ends in exactly one of two places, `orders` or the dead letters; it must never stop the line or disappear.
"""
