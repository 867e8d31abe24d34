"""One report and two cards of a run, filled from the files that its stages wrote."""
