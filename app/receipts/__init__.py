"""The public half of the key that signs this server's receipts."""
