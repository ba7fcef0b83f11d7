"""Pure execution models: events in, actions out."""
