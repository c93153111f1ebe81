"""The static site of a finished study."""
