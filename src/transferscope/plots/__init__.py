"""Figures from tidy tables, as a paper would print them."""
