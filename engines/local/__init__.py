"""The embedded world: worker processes and a shared-memory block store."""
