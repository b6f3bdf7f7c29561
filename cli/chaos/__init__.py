"""The fault harness: the whole product under load and faults, then compared with an independent batch computation.

Must never judge the product by its own running state: what was published, and what the topics and MongoDB hold at the
end, is all that counts.
"""
