"""Workloads of clients against systems that keep data: table formats, databases, indexes of vectors; and the judges of their histories."""
