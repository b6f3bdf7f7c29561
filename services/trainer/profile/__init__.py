"""The classic profile model: a customer's monetary value from the seven inputs alone, for the what-if form. Its target
is (almost) orders times average order value, so its accuracy measures arithmetic. It must never be taken for a
forecast."""
