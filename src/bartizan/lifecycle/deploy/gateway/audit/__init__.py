"""The audit log of the gateway: every request, in a Merkle log of its own."""
