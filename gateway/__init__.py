"""Gateways hold sockets: sessions, access, routing; never a document."""
