"""The one error that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in the user's files, configuration or call; one line that says what, where and what to do."""
