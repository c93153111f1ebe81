"""Tables for people: cells, grids, the terminal."""
