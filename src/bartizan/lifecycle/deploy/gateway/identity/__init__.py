"""Who asks: ways of showing who one is, and what each of them is worth."""
