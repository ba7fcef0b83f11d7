"""Serving in the simulated world: requests through proxies, queues and replicas on nodes with finitely many CPUs."""
