"""The processes of a run on several hosts: start, agreement, failures, stalls."""
