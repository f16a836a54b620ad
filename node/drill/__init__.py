"""The fail-over drill: load on a cluster, one thing broken at a time, and what the promises were worth."""
