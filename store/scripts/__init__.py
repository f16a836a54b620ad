"""One Lua file for each atomic step of the ledger; keys and arguments are spelled in store/keys.py and its callers."""
