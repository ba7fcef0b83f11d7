"""What work costs, as data and plain arithmetic: measured costs and the laws that turn them into seconds and bytes."""
