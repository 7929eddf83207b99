"""Learning from perturbations: the study of worst groups, and what adversarial directions teach."""
