"""Writes a planned data set: records, metadata and checksums, shard by shard."""
