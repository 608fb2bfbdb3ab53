"""What lies on disk: records, weights, studies, locks."""
