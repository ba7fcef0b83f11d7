"""Who executes: the embedded engines, adapters of foreign ones, and the models that decide."""
