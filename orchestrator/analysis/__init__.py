"""What the results mean: significance, importance, Pareto front, costs. Pure functions."""
