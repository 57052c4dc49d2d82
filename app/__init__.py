"""The HTTP service and the durable truth behind it: one folder a domain, wired together in `app.main`."""
