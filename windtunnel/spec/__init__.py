"""What a job and a cluster are: plans, expressions, workloads, hardware, services, units. Frozen data, validated when built."""
