"""Kedro datasets of this project; every save is atomic."""
