"""Pieces that several counterfactual methods share."""
