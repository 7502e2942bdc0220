"""Upstreams over HTTP: the only place of the gateway that asks other servers for answers."""
