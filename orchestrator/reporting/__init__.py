"""Reports, plots and tables from a run folder."""
