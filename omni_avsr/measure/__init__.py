"""Word error rates, costs, comparisons and reports."""
