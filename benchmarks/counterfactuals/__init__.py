"""Counterfactual methods: their comparison, other libraries on the same rows, and certified optima."""
