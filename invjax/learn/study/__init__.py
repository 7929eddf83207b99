"""The study of learning from counterfactuals: methods by name, over seeds, measured by the worst group."""
