"""Detection of inputs that are unlike those the model learnt from, and what follows from it."""
