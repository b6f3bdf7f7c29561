"""How far each service is behind: see services.runtime.lag, which the API reads too."""

from services.runtime.lag import GROUPS, PARTITIONS, LagReader

__all__ = ["GROUPS", "PARTITIONS", "LagReader"]
