"""What a run leaves: the file, its certificate."""
