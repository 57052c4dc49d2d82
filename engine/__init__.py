"""Training, measuring and compressing one model: paths in, paths out. Knows no HTTP, SQL, queue or object store."""
