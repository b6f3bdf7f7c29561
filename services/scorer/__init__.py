"""The scorer: customer features in, predictions out. Follows the model pointer and the population's thresholds."""
