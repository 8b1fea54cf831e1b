"""Foreign weights to our folders."""
