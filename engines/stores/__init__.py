"""Systems that keep data (table formats, databases, indexes of vectors) and the clients that work against them for real."""
