"""What MongoDB's client complains of, for a line that a person reads. It must never show a password."""

from pymongo.errors import ServerSelectionTimeoutError

LINE_MAX = 200


def in_short(error: Exception) -> str:
    """The complaint in one line of LINE_MAX characters at most, without the client's timeouts and list of servers."""
    text = str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]
    return " ".join(text.split())[:LINE_MAX]


def at(uri: str, error: Exception) -> str:
    """The complaint with the server's address, and what to do if nobody answers there."""
    line = f"MongoDB at {without_password(uri)}: {in_short(error)}"
    if not isinstance(error, ServerSelectionTimeoutError):
        return line
    return f"{line.rstrip('.')}: start it, or set CLV_MONGO_URI to where it is"


def without_password(uri: str) -> str:
    """A MongoDB address without user and password."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
