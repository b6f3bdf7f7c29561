"""Forms: seven inputs in, a prediction out, and what was answered kept."""
