"""Prepared data sets on disk or in a bucket: their directory, records and images."""
