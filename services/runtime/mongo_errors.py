"""What MongoDB's client complains of, for a line that a person reads. It must never show a password."""

LINE_MAX = 200


def in_short(error: Exception) -> str:
    """The complaint in one line of LINE_MAX characters at most, without the client's timeouts and list of servers."""
    text = str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]
    return " ".join(text.split())[:LINE_MAX]


def without_password(uri: str) -> str:
    """A MongoDB address without user and password."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
