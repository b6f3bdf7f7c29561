"""The one error of the embedded stack. Its text must be one line for the user: what is wrong, and what to do then."""


class LocalStackError(Exception):
    """Something that the embedded servers need is missing or does not work. `str()` is fit to be shown as it is."""
