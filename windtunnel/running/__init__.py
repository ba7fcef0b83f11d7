"""How a matrix of cells is run and measured for real: order, processes, limits, environments."""
