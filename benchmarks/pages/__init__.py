"""What the documentation's pages show of the results, a function for each marker."""
