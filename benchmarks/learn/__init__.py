"""Learning from counterfactuals, by the worst group."""
