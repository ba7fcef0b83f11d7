"""Pure functions Arrow batch → Arrow batch, named by dotted path in plans."""
