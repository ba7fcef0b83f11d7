"""What a run leaves: the one record, its store on disk, and the numbers that scenarios promise, read off a record."""
