"""What the study claims, and whether the tables bear it out."""
