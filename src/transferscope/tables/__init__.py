"""Tables for people: rows and columns that are shown, cells, grids, the terminal, Markdown."""
