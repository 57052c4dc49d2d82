"""The privacy ledger: what was spent on whose rows, what is reserved, and what a budget leaves."""
