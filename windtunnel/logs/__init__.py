"""What other systems wrote down about their jobs, read into one form: `windtunnel.spec.jobgraph`."""
