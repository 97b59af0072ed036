"""Graph to aggregation operator: normalization, spectral radius, sparse products, schedules."""
