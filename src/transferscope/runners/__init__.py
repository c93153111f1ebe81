"""Kedro runners for several devices."""
