"""What can be seen of a run from its files, for `status` and the report: from any shell, live launcher or not."""
