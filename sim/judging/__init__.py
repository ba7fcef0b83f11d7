"""How good a prediction can be: lower bounds, published cells, prediction intervals."""
