"""Training in several processes: a launcher, its workers, and the group that they form."""
