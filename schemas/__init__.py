"""The contracts between teams and services: topics, messages, dead-letter reasons. The only place that knows them.

Pure declarations with typed encode and decode; must never talk to a server.
"""
