"""
The processes: Twisted, never blocking. They keep nothing that matters (I7).

All blocking work is in ``store/`` and reached through ``node/pools.py`` only.
"""
