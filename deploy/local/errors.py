"""The one error of the embedded stack. Its text is a single line for the user: what is wrong and what to do about it."""


class LocalStackError(Exception):
    """Something that the embedded servers need is missing or does not work. `str()` is fit to be shown as it is."""
