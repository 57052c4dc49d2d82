"""Training, measuring and compressing one model. Knows nothing of HTTP, SQL, queues or object stores: paths in, paths out."""
