"""The data sets that can be prepared, each from the files its owners distribute."""
