"""Small data sets and their conversion."""
