"""How a scenario file becomes specs: the shape of the file, its tables and its sweep."""
