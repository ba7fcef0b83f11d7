"""The other world: a simulated cluster that obeys any execution model. It knows no engine by name."""
