"""Gateways and workers as processes of their own, joined by Redis (DESIGN 1 to 4)."""
