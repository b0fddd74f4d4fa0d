"""A page on one's own machine that makes music while one listens: its folder, its jobs, its server."""
