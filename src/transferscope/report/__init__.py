"""The report: results of all tasks, the study's claims decided by stated rules, one self-contained page."""
