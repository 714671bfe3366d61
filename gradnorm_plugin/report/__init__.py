"""A run's report: `report.md` and `report.html` from the files that training left in the run's folder, and from nothing else."""
