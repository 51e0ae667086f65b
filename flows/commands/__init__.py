"""What `atlas compare`, `atlas pull` and `atlas show` do."""
