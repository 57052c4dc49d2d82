"""Who may do what: keys, roles, tenants, the audit log and the rate limit."""
