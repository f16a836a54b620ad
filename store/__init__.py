"""
The shared state: the mail store (files) and the ledger (Redis).

Plain blocking Python that has never heard of Twisted. Everything that must survive a node lives here; the
processes in ``node/`` keep nothing.
"""
