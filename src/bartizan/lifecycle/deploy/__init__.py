"""Deploy: what was judged is what is served."""
