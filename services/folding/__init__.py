"""What feature workers and trainer share: what order records, merges and erasures do to customers' rows.

No service: has no process, no clock and no IO of its own.
"""

GROUP = "clv-features"
"""Consumer group of the feature workers. It has committed something of each partition that was ever folded, as long as
the topic is the same one."""
