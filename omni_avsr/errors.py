"""The error of everything that a user can mend."""


class InputError(ValueError):
    """Something that was given cannot be used. The message says what, and what to do about it.

    The command line prints it as one sentence. Any other error keeps its traceback: it is a fault
    of ours, or of a library.
    """
