"""The images that are drawn for the default study."""
