"""Counterfactual methods compared on tables, beside other libraries, and proved."""
