"""Ridge regression from sufficient statistics: statistics, lambda path, selection, model, scores."""
